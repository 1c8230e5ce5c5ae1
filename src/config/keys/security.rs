//! Authentication, encryption and authorization: refused where their absence would be a hole.

use super::{Key, key_table};

key_table! {
    "sasl.enabled.mechanisms" List Some("GSSAPI"), Any, Broker, GSSAPI,
        "SASL mechanisms that listeners offer.";
    "sasl.mechanism.inter.broker.protocol" Text Some("GSSAPI"), Any, Broker, Planned,
        "SASL mechanism between brokers.";
    "sasl.mechanism.controller.protocol" Text Some("GSSAPI"), Any, ReadOnly, Planned,
        "SASL mechanism towards controllers.";
    "sasl.jaas.config" Password None, Any, Broker, Planned,
        "SASL credentials of this node, per listener and mechanism.";
    "sasl.server.max.receive.size" Int Some("524288"), Any, ReadOnly, Planned,
        "Largest SASL token before authentication.";
    "sasl.oauthbearer.jwks.endpoint.url" Text None, Any, ReadOnly, Planned,
        "Where the keys that sign tokens are fetched.";
    "sasl.oauthbearer.jwks.endpoint.refresh.ms" Long Some("3600000"), Any, ReadOnly, Planned,
        "How often signing keys are fetched again.";
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms" Long Some("100"), Any, ReadOnly, Planned,
        "First wait after a failed fetch of signing keys.";
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms" Long Some("10000"), Any, ReadOnly, Planned,
        "Longest wait after failed fetches of signing keys.";
    "sasl.oauthbearer.expected.audience" List Some(""), Any, ReadOnly, Planned,
        "Audiences that a token may be for.";
    "sasl.oauthbearer.expected.issuer" Text None, Any, ReadOnly, Planned,
        "Who must have issued a token.";
    "sasl.oauthbearer.clock.skew.seconds" Int Some("30"), Any, ReadOnly, Planned,
        "Difference of clocks that a token's times may show.";
    "sasl.oauthbearer.scope.claim.name" Text Some("scope"), Any, ReadOnly, Planned,
        "Claim that holds a token's scope.";
    "sasl.oauthbearer.sub.claim.name" Text Some("sub"), Any, ReadOnly, Planned,
        "Claim that holds a token's subject.";
    "ssl.keystore.type" Text Some("JKS"), Any, Broker, Planned,
        "Format of the key store: PEM, PKCS12 or JKS.";
    "ssl.keystore.location" Text None, Any, Broker, Planned,
        "File with the node's key and certificate.";
    "ssl.keystore.password" Password None, Any, Broker, Planned,
        "Password of the key store.";
    "ssl.keystore.key" Password None, Any, Broker, Planned,
        "Private key as PEM text.";
    "ssl.keystore.certificate.chain" Password None, Any, Broker, Planned,
        "Certificates of the node as PEM text.";
    "ssl.key.password" Password None, Any, Broker, Planned,
        "Password of the private key.";
    "ssl.truststore.type" Text Some("JKS"), Any, Broker, Planned,
        "Format of the trust store.";
    "ssl.truststore.location" Text None, Any, Broker, Planned,
        "File with the certificates that are trusted.";
    "ssl.truststore.password" Password None, Any, Broker, Planned,
        "Password of the trust store.";
    "ssl.truststore.certificates" Password None, Any, Broker, Planned,
        "Trusted certificates as PEM text.";
    "ssl.client.auth" Text Some("none"), OneOf(&["required", "requested", "none"]), Broker, CLIENT_AUTH,
        "Whether clients must show a certificate.";
    "ssl.protocol" Text Some("TLSv1.3"), Any, Broker, Planned,
        "TLS version to use.";
    "ssl.enabled.protocols" List Some("TLSv1.2,TLSv1.3"), Any, Broker, Planned,
        "TLS versions that are allowed.";
    "ssl.cipher.suites" List Some(""), Any, Broker, Planned,
        "Cipher suites that are allowed.";
    "ssl.endpoint.identification.algorithm" Text Some("https"), Any, Broker, Planned,
        "How a server's name is checked against its certificate.";
    "ssl.principal.mapping.rules" Text Some("DEFAULT"), Any, ReadOnly, Planned,
        "How a certificate's name becomes a principal.";
    "ssl.allow.dn.changes" Boolean Some("false"), Any, ReadOnly, Planned,
        "Whether a reloaded key store may change its distinguished name.";
    "ssl.allow.san.changes" Boolean Some("false"), Any, ReadOnly, Planned,
        "Whether a reloaded key store may change its alternative names.";
    "authorizer.class.name" Text Some(""), Any, ReadOnly, AUTHORIZER,
        "The class that decides who may do what.";
    "super.users" Text Some(""), Any, ReadOnly, Planned,
        "Principals that are always allowed, separated by `;`.";
    "allow.everyone.if.no.acl.found" Boolean Some("false"), Any, ReadOnly, Planned,
        "Whether a resource without rules is open to all.";
    "delegation.token.secret.key" Password None, Any, ReadOnly, Planned,
        "Secret that signs delegation tokens.";
    "delegation.token.max.lifetime.ms" Long Some("604800000"), Min(1), ReadOnly, Planned,
        "Longest life of a delegation token, renewals included.";
    "delegation.token.expiry.time.ms" Long Some("86400000"), Min(1), ReadOnly, Planned,
        "Life of a delegation token until it is renewed.";
    "delegation.token.expiry.check.interval.ms" Long Some("3600000"), Min(1), ReadOnly, Planned,
        "How often expired delegation tokens are removed.";
    "principal.builder.class" Class
        Some("org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder"),
        Any, Broker, PLUGIN,
        "A class that makes principals.";
    "sasl.client.callback.handler.class" Class None, Any, ReadOnly, PLUGIN,
        "A class that answers for SASL clients.";
    "sasl.server.callback.handler.class" Class None, Any, ReadOnly, PLUGIN,
        "A class that answers for SASL servers.";
    "sasl.login.callback.handler.class" Class None, Any, ReadOnly, PLUGIN,
        "A class that answers for SASL logins.";
    "sasl.login.class" Class None, Any, ReadOnly, PLUGIN,
        "A class that logs in.";
    "sasl.oauthbearer.jwt.retriever.class" Class
        Some("org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever"),
        Any, ReadOnly, PLUGIN,
        "A class that fetches tokens.";
    "sasl.oauthbearer.jwt.validator.class" Class
        Some("org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator"),
        Any, ReadOnly, PLUGIN,
        "A class that checks tokens.";
    "ssl.engine.factory.class" Class None, Any, Broker, PLUGIN,
        "A class that makes TLS engines.";
    "ssl.provider" Text None, Any, Broker, Ignored(JVM),
        "Java security provider of TLS.";
    "ssl.keymanager.algorithm" Text Some("SunX509"), Any, Broker, Ignored(JVM),
        "Java key manager algorithm.";
    "ssl.trustmanager.algorithm" Text Some("PKIX"), Any, Broker, Ignored(JVM),
        "Java trust manager algorithm.";
    "ssl.secure.random.implementation" Text None, Any, Broker, Ignored(JVM),
        "Java source of randomness.";
    "security.providers" Text None, Any, ReadOnly, Ignored(JVM),
        "Java classes that provide security algorithms.";
    "sasl.kerberos.kinit.cmd" Text Some("/usr/bin/kinit"), Any, Broker, Ignored(JVM),
        "Kerberos kinit command.";
    "sasl.kerberos.min.time.before.relogin" Long Some("60000"), Any, Broker, Ignored(JVM),
        "Milliseconds between Kerberos logins.";
    "sasl.kerberos.principal.to.local.rules" List Some("DEFAULT"), Any, Broker, Ignored(JVM),
        "How Kerberos principals become short names.";
    "sasl.kerberos.service.name" Text None, Any, Broker, Ignored(JVM),
        "Kerberos name of the service.";
    "sasl.kerberos.ticket.renew.jitter" Double Some("0.05"), Any, Broker, Ignored(JVM),
        "Random share of the Kerberos renewal time.";
    "sasl.kerberos.ticket.renew.window.factor" Double Some("0.8"), Any, Broker, Ignored(JVM),
        "Share of a ticket's life after which Kerberos renews it.";
    "sasl.login.connect.timeout.ms" Int None, Any, ReadOnly, Ignored(JVM),
        "How long a token login waits to connect.";
    "sasl.login.read.timeout.ms" Int None, Any, ReadOnly, Ignored(JVM),
        "How long a token login waits for an answer.";
    "sasl.login.refresh.buffer.seconds" Short Some("300"), Any, Broker, Ignored(JVM),
        "How long before its end a login is refreshed.";
    "sasl.login.refresh.min.period.seconds" Short Some("60"), Any, Broker, Ignored(JVM),
        "Shortest time between refreshes of a login.";
    "sasl.login.refresh.window.factor" Double Some("0.8"), Any, Broker, Ignored(JVM),
        "Share of a login's life after which it is refreshed.";
    "sasl.login.refresh.window.jitter" Double Some("0.05"), Any, Broker, Ignored(JVM),
        "Random share of the refresh time of a login.";
    "sasl.login.retry.backoff.max.ms" Long Some("10000"), Any, ReadOnly, Ignored(JVM),
        "Longest wait between login attempts.";
    "sasl.login.retry.backoff.ms" Long Some("100"), Any, ReadOnly, Ignored(JVM),
        "First wait between login attempts.";
    "sasl.oauthbearer.assertion.algorithm" Text Some("RS256"),
        OneOfAnyCase(&["ES256", "RS256"]), ReadOnly, Ignored(JVM),
        "Client side: algorithm that signs an assertion.";
    "sasl.oauthbearer.assertion.claim.aud" Text None, Any, ReadOnly, Ignored(JVM),
        "Client side: audience of an assertion.";
    "sasl.oauthbearer.assertion.claim.exp.seconds" Int Some("300"), Range(0, 86_400), ReadOnly, Ignored(JVM),
        "Client side: life of an assertion.";
    "sasl.oauthbearer.assertion.claim.iss" Text None, Any, ReadOnly, Ignored(JVM),
        "Client side: issuer of an assertion.";
    "sasl.oauthbearer.assertion.claim.jti.include" Boolean Some("false"), Any, ReadOnly, Ignored(JVM),
        "Client side: whether an assertion has an id.";
    "sasl.oauthbearer.assertion.claim.nbf.seconds" Int Some("60"), Range(0, 3600), ReadOnly, Ignored(JVM),
        "Client side: how far back an assertion is good.";
    "sasl.oauthbearer.assertion.claim.sub" Text None, Any, ReadOnly, Ignored(JVM),
        "Client side: subject of an assertion.";
    "sasl.oauthbearer.assertion.file" Text None, Any, ReadOnly, Ignored(JVM),
        "Client side: file with an assertion.";
    "sasl.oauthbearer.assertion.private.key.file" Text None, Any, ReadOnly, Ignored(JVM),
        "Client side: key that signs an assertion.";
    "sasl.oauthbearer.assertion.private.key.passphrase" Password None, Any, ReadOnly, Ignored(JVM),
        "Client side: password of that key.";
    "sasl.oauthbearer.assertion.template.file" Text None, Any, ReadOnly, Ignored(JVM),
        "Client side: template of an assertion.";
    "sasl.oauthbearer.client.credentials.client.id" Text None, Any, ReadOnly, Ignored(JVM),
        "Client side: id for a token request.";
    "sasl.oauthbearer.client.credentials.client.secret" Password None, Any, ReadOnly, Ignored(JVM),
        "Client side: secret for a token request.";
    "sasl.oauthbearer.scope" Text None, Any, ReadOnly, Ignored(JVM),
        "Client side: scope of a token request.";
    "sasl.oauthbearer.token.endpoint.url" Text None, Any, ReadOnly, Ignored(JVM),
        "Client side: where tokens are requested.";
    "sasl.oauthbearer.header.urlencode" Boolean Some("false"), Any, ReadOnly, Ignored(JVM),
        "Client side: whether credentials are URL-encoded in the header.";
}

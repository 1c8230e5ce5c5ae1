//! UpdateFeatures: all features of a request get their level, or none does.

use bytes::Bytes;
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::controlled::{Asked, Controlled};
use super::topics::limit_wait;
use super::{CloseReason, Scene, StrBytes, Work, encoded};
use crate::controller::request::FeatureUpdate;
use crate::controller::{ControllerAnswer, ControllerRequest};
use crate::partition::ReplyTo;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

/// First version whose response no longer lists the features.
const VERSION_ONE_RESULT: i16 = 2;
/// Kafka's numbers of upgrade types; version 0 has a flag instead.
const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;

/// The features of a request.
#[derive(Debug)]
pub(super) struct Update(Vec<StrBytes>);

pub(super) fn update(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: UpdateFeaturesRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let names = request.feature_updates.iter().map(|update| update.feature.clone()).collect();
    let upgrade_type = |update: &FeatureUpdateKey| match (header.version, update.allow_downgrade) {
        (0, true) => SAFE_DOWNGRADE,
        (0, false) => UPGRADE,
        _ => update.upgrade_type,
    };
    let wanted = |update: FeatureUpdateKey| FeatureUpdate {
        upgrade_type: upgrade_type(&update),
        name: update.feature.to_string(),
        level: update.max_version_level,
    };
    let updates = request.feature_updates.into_iter().map(wanted).collect();
    limit_wait(request.timeout_ms, to, scene);
    let asked = ControllerRequest::UpdateFeatures { updates, validate_only: request.validate_only };
    scene.desk.controls.push((to, asked));
    Ok(Controlled::waiting(Asked::UpdateFeatures(Update(names))))
}

impl Update {
    pub(super) fn encode(self, header: &RequestHeader, answer: Option<ControllerAnswer>) -> Work {
        let response = UpdateFeaturesResponse::default();
        let response = match answer {
            Some(ControllerAnswer::Features(Ok(()))) if header.version < VERSION_ONE_RESULT => {
                let result = |feature| {
                    UpdatableFeatureResult::default()
                        .with_feature(feature)
                        .with_error_message(Some(StrBytes::from_static_str("NONE")))
                };
                response.with_error_message(None).with_results(self.0.into_iter().map(result).collect())
            }
            Some(ControllerAnswer::Features(Ok(()))) => response.with_error_message(None),
            Some(ControllerAnswer::Features(Err(error))) => response
                .with_error_code(error.code.code())
                .with_error_message(Some(StrBytes::from_string(error.message))),
            Some(ControllerAnswer::Refused(code)) => {
                response.with_error_code(code.code()).with_error_message(None)
            }
            _ => response.with_error_code(ErrorCode::UnknownServerError.code()),
        };
        encoded(header, &response)
    }
}

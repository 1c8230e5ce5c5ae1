//! The text of a Java properties file, as `java.util.Properties` reads it, except that bytes are UTF-8 as people
//! write them and not Latin-1.
//!
//! A key ends at the first `=`, `:` or blank that no backslash precedes; `#` and `!` begin a comment line; a
//! backslash at the end of a line continues it on the next, without that line's leading blanks; `\t \n \r \f`
//! and `\uXXXX` are escapes, any other escaped character is itself. A malformed `\u` is an error.

/// One entry and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, unescaped.
    pub key: String,
    /// The value, unescaped; trailing blanks belong to it.
    pub value: String,
    /// The number of its first line, from 1.
    pub line: usize,
}

/// What is wrong with a line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PropertiesError {
    /// The number of the entry's first line, from 1.
    pub line: usize,
    /// The escape that is not four hexadecimal digits.
    pub escape: String,
}

/// Reads every entry in the order in which they stand.
pub fn parse(text: &str) -> Result<Vec<Entry>, PropertiesError> {
    let mut entries = Vec::new();
    for (line, logical) in logical_lines(text) {
        let (key, value) = split(&logical);
        let unescaped = |part| unescape(part).map_err(|escape| PropertiesError { line, escape });
        entries.push(Entry { key: unescaped(key)?, value: unescaped(value)?, line });
    }
    Ok(entries)
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

/// Lines without comments and empty ones, continuations joined, each with the number of its first line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, natural) in natural_lines(text).enumerate() {
        let content = natural.trim_start_matches(is_blank);
        if open.is_none() && (content.is_empty() || content.starts_with(['#', '!'])) {
            continue;
        }
        let backslashes = content.chars().rev().take_while(|&character| character == '\\').count();
        let continues = backslashes % 2 == 1;
        let kept = if continues { content.strip_suffix('\\').unwrap_or(content) } else { content };
        let (_, logical) = open.get_or_insert((index + 1, String::new()));
        logical.push_str(kept);
        if !continues {
            lines.extend(open.take());
        }
    }
    lines.extend(open);
    lines
}

/// Lines ended by `\n`, `\r` or both.
fn natural_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// Key and value, both still escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.char_indices().find(|&(_, character)| {
        let ends = !escaped && (is_blank(character) || matches!(character, '=' | ':'));
        escaped = !escaped && character == '\\';
        ends
    });
    let (key, rest) = end.map_or((line, ""), |(at, _)| line.split_at(at));
    let rest = rest.trim_start_matches(is_blank);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, value.trim_start_matches(is_blank))
}

/// The text that an escaped text stands for, or the escape that is wrong.
fn unescape(text: &str) -> Result<String, String> {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut characters = text.chars();
    let mut buffer = [0_u16; 2];
    while let Some(character) = characters.next() {
        let literal = match character {
            '\\' => match characters.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some('u') => {
                    let digits: String = characters.by_ref().take(4).collect();
                    let is_hex = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                    let unit = u16::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
                    units.push(unit.ok_or_else(|| format!("\\u{digits}"))?);
                    continue;
                }
                Some(other) => other,
                None => break,
            },
            other => other,
        };
        units.extend_from_slice(literal.encode_utf16(&mut buffer));
    }
    Ok(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().map(|entry| (entry.key, entry.value)).collect()
    }

    fn one(text: &str) -> (String, String) {
        let [pair] = pairs(text).try_into().unwrap();
        pair
    }

    #[test]
    fn keys_end_at_equals_colon_or_blank() {
        for text in ["a=b", "a:b", "a b", "  a = b", "a\t:\tb", "a  b", "a=b\r\n", "\r\na=b\r"] {
            assert_eq!(one(text), ("a".to_owned(), "b".to_owned()), "{text:?}");
        }
        assert_eq!(one("listeners=PLAINTEXT://:9092").1, "PLAINTEXT://:9092");
        assert_eq!(one("a"), ("a".to_owned(), String::new()));
        assert_eq!(one("a=b ").1, "b ");
        assert_eq!(one("a==b").1, "=b");
    }

    #[test]
    fn comments_and_empty_lines_are_skipped_but_not_within_a_continuation() {
        assert_eq!(pairs("# x=y\n\n  ! z\n"), []);
        assert_eq!(one("a=b,\\\n   # c").1, "b,# c");
    }

    #[test]
    fn a_backslash_at_the_end_continues_a_line_unless_it_is_escaped() {
        assert_eq!(one("log.dirs=/a,\\\n    /b,\\\n/c"), ("log.dirs".to_owned(), "/a,/b,/c".to_owned()));
        assert_eq!(pairs("a=x\\\\\nb=y").len(), 2);
        assert_eq!(one("a=x\\").1, "x");
        assert_eq!(one("a=x\\\n\n").1, "x");
    }

    #[test]
    fn escapes_are_javas() {
        assert_eq!(one("a\\ b\\=c=\\u0041\\t\\q\\\\"), ("a b=c".to_owned(), "A\tq\\".to_owned()));
        assert_eq!(one("a=\\uD83D\\uDE00").1, "😀");
        assert_eq!(one("a=grün").1, "grün");
        assert_eq!(parse("x=1\na=\\u00g0"), Err(PropertiesError { line: 2, escape: "\\u00g0".to_owned() }));
        assert!(parse("a=\\u12").is_err());
    }

    #[test]
    fn entries_know_their_line() {
        let lines: Vec<usize> = parse("a=1\\\n2\n#\nb=3").unwrap().iter().map(|entry| entry.line).collect();
        assert_eq!(lines, [1, 4]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*|([\\\\a#!=: \t\r\nu0-9\u{c}]{0,40})") {
            let _ = parse(&text);
        }
    }
}

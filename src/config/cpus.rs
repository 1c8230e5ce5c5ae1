//! The grammar of `shard.cpus`: `all`, or numbers and ascending ranges with both ends, as in `0-3,6`.

use super::ShardCpus;

/// CPU numbers are below this, as in the kernel's largest configuration.
const CPU_LIMIT: u32 = 8192;

impl ShardCpus {
    /// Reads the value of `shard.cpus`; the error says what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("all") {
            return Ok(Self::All);
        }
        let mut cpus = Vec::new();
        for item in text.split(',').map(str::trim) {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let (Some(first), Some(last)) = (cpu(first), cpu(last)) else {
                return Err(format!("'{item}' is neither a CPU below {CPU_LIMIT} nor a range; {ALLOWED}"));
            };
            if first > last {
                return Err(format!("the range '{item}' ends before it begins; {ALLOWED}"));
            }
            cpus.extend(first..=last);
        }
        cpus.sort_unstable();
        if cpus.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(format!("a CPU is named twice; {ALLOWED}"));
        }
        Ok(Self::List(cpus))
    }
}

const ALLOWED: &str = "allowed are 'all', or numbers and ranges such as '0-3,6'";

fn cpu(text: &str) -> Option<u32> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&number| digits && number < CPU_LIMIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_and_ranges_are_cpus() {
        assert_eq!(ShardCpus::parse(" all "), Ok(ShardCpus::All));
        assert_eq!(ShardCpus::parse("6, 0-3"), Ok(ShardCpus::List(vec![0, 1, 2, 3, 6])));
        assert_eq!(ShardCpus::parse("5"), Ok(ShardCpus::List(vec![5])));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for text in ["", "0,", "a", "3-1", "0-", "-1", "+1", "0-8192", "0,0", "0-2,2", "99999999999"] {
            assert!(ShardCpus::parse(text).unwrap_err().contains("allowed are"), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-0-9, al]{0,20}") {
            if let Ok(ShardCpus::List(cpus)) = ShardCpus::parse(&text) {
                prop_assert!(!cpus.is_empty());
            }
        }
    }
}

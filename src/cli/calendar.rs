//! Dates of the Gregorian calendar, in UTC, by whole eras of 400 years.

use std::time::{SystemTime, UNIX_EPOCH};

pub(super) const DAY_MS: i64 = 86_400_000;

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Days from 1970-01-01 to a date.
pub(super) fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    // A year begins in March here, so that the leap day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// A time by a pattern of Java's SimpleDateFormat, of which y, M, d, H, m, s and S are known: as many digits at least
/// as there are letters. Other signs stand for themselves.
pub(super) fn format_time(ms: i64, pattern: &str) -> String {
    let (year, month, day) = date_of(ms.div_euclid(DAY_MS));
    let of_day = ms.rem_euclid(DAY_MS);
    let mut text = String::new();
    let mut signs = pattern.chars().peekable();
    while let Some(sign) = signs.next() {
        let number = match sign {
            'y' => year,
            'M' => month,
            'd' => day,
            'H' => of_day / 3_600_000,
            'm' => of_day / 60_000 % 60,
            's' => of_day / 1000 % 60,
            'S' => of_day % 1000,
            other => {
                text.push(other);
                continue;
            }
        };
        let mut width = 1;
        while signs.next_if_eq(&sign).is_some() {
            width += 1;
        }
        let number = if sign == 'y' && width == 2 { number % 100 } else { number };
        text.push_str(&format!("{number:0>width$}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_there_and_back() {
        for (year, month, day) in [(1970, 1, 1), (2000, 2, 29), (2023, 12, 31), (2024, 3, 1), (2100, 2, 28)] {
            assert_eq!(date_of(days_since_epoch(year, month, day)), (year, month, day));
        }
    }

    #[test]
    fn a_time_is_written_by_a_pattern() {
        let pattern = "yyyy-MM-dd HH:mm:ss:SSS";
        assert_eq!(format_time(1_709_210_096_789, pattern), "2024-02-29 12:34:56:789");
        assert_eq!(format_time(7, "yy/M/d H:m:s.SSS"), "70/1/1 0:0:0.007");
    }
}

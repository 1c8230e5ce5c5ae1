//! The times that offsets are reset to: ISO 8601 points in time and durations, as Java reads them.

use crate::cli::calendar::{DAY_MS, days_since_epoch};

/// Milliseconds since the Unix epoch of `YYYY-MM-DDThh:mm:ss.sss`, in UTC unless `Z`, `+hh:mm` or `-hhmm` follows.
pub(super) fn parse_datetime(text: &str) -> Option<i64> {
    let (date, time) = text.split_once('T')?;
    let zone_at = time.find(['Z', '+', '-']);
    let (time, zone) =
        zone_at.map_or((time, ""), |at| (time.get(..at).unwrap_or(""), time.get(at..).unwrap_or("")));
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut clock = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hours, minutes) = (clock.next()??, clock.next()??);
    let seconds = clock.next().unwrap_or(Some(0))?;
    let sound = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hours)
        && (0..60).contains(&minutes)
        && (0..60).contains(&seconds)
        && (1..=9).contains(&fraction.len())
        && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !sound {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let ms =
        days_since_epoch(year, month, day) * DAY_MS + ((hours * 60 + minutes) * 60 + seconds) * 1000 + millis;
    Some(ms - zone_ms(zone)?)
}

/// By how much a zone is ahead of UTC.
fn zone_ms(zone: &str) -> Option<i64> {
    let (sign, rest) = match zone.split_at_checked(1) {
        None | Some(("Z", "")) => return Some(0),
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        Some(_) => return None,
    };
    let digits = rest.replace(':', "");
    let number: i64 = digits.parse().ok().filter(|_| digits.len() == 4)?;
    Some(sign * (number / 100 * 60 + number % 100) * 60_000)
}

/// Milliseconds of `PnDTnHnMnS`, of which parts may be missing.
pub(super) fn parse_duration(text: &str) -> Option<i64> {
    let rest = text.strip_prefix(['P', 'p'])?;
    let (days, clock) = rest.split_once(['T', 't']).unwrap_or((rest, ""));
    let mut total_ms = 0_i64;
    let mut parts = 0;
    for (part, units) in
        [(days, &[('D', DAY_MS)][..]), (clock, &[('H', 3_600_000), ('M', 60_000), ('S', 1000)][..])]
    {
        let mut number = String::new();
        let mut units = units.iter();
        for sign in part.chars() {
            if sign.is_ascii_digit() || sign == '.' || sign == '-' {
                number.push(sign);
                continue;
            }
            let (_, unit_ms) = units.find(|(unit, _)| unit.eq_ignore_ascii_case(&sign))?;
            total_ms = total_ms.checked_add(scaled(&number, *unit_ms)?)?;
            number.clear();
            parts += 1;
        }
        if !number.is_empty() {
            return None;
        }
    }
    (parts > 0).then_some(total_ms)
}

/// A number of units in milliseconds; only seconds may have a fraction.
fn scaled(number: &str, unit_ms: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if !fraction.is_empty() && unit_ms != 1000 {
        return None;
    }
    let whole_ms = whole.parse::<i64>().ok()?.checked_mul(unit_ms)?;
    let fraction_ms: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    whole_ms.checked_add(if number.starts_with('-') { -fraction_ms } else { fraction_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_iso_8601_in_utc_or_a_zone() {
        assert_eq!(parse_datetime("1970-01-01T00:00:00.000"), Some(0));
        assert_eq!(parse_datetime("2024-02-29T12:34:56.789"), Some(1_709_210_096_789));
        assert_eq!(parse_datetime("2024-02-29T12:34:56.789Z"), Some(1_709_210_096_789));
        assert_eq!(parse_datetime("2024-02-29T14:34:56.789+02:00"), Some(1_709_210_096_789));
        assert_eq!(parse_datetime("2024-02-29T07:04:56.789-0530"), Some(1_709_210_096_789));
        for wrong in [
            "",
            "2024",
            "2024-13-01T00:00:00.0",
            "2024-01-01",
            "2024-01-01T25:00:00",
            "2024-01-01T00:00:00.x",
        ] {
            assert_eq!(parse_datetime(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_are_iso_8601() {
        assert_eq!(parse_duration("P1DT2H3M4.5S"), Some(93_784_500));
        assert_eq!((parse_duration("PT5M"), parse_duration("P7D")), (Some(300_000), Some(604_800_000)));
        assert_eq!(parse_duration("PT-1.5S"), Some(-1500));
        for wrong in ["", "P", "PT", "5M", "P5", "PT5X", "PT1S1H", "P1.5D", "PTS", "P99999999999999999D"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}

//! Dates as HTTP writes them (RFC 9110 §5.6.7), as seconds since 1970.
//!
//! Read is what the RFC lets anybody send: the one current format and two old ones. Case is not looked at, and neither is
//! the day of the week: it says nothing that the date does not, and old software gets it wrong. Everything else is no date,
//! which for `Expires` means "stale" (RFC 9111 §5.3).

use http::HeaderValue;
use jiff::{Timestamp, civil::DateTime, fmt::rfc2822, tz::Offset};

const MONTHS: [&[u8]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
const DAYS: [&[u8]; 7] = [b"mon", b"tue", b"wed", b"thu", b"fri", b"sat", b"sun"];
const LONG_DAYS: [&[u8]; 7] = [b"monday", b"tuesday", b"wednesday", b"thursday", b"friday", b"saturday", b"sunday"];

/// No date has more bytes: `Wednesday, 18-Aug-50 02:01:18 GMT`.
const LONGEST: usize = 33;

/// The most years that a date with two digits of its year can be ahead; beyond that, it was in the century before.
const AHEAD: i64 = 50;

/// Reads a date; `now` (seconds since 1970) tells which century two digits of a year mean.
pub fn parse(value: &[u8], now: u64) -> Option<u64> {
    let mut text = [0; LONGEST];
    let value = value.trim_ascii();
    let text = text.get_mut(..value.len())?;
    text.copy_from_slice(value);
    text.make_ascii_lowercase();
    let text = &*text;
    let (date, short_year) = if let Some(comma) = text.iter().position(|byte| *byte == b',') {
        let rest = text[comma + 1..].strip_prefix(b" ")?;
        if DAYS.contains(&&text[..comma]) {
            (fixdate(rest)?, false)
        } else if LONG_DAYS.contains(&&text[..comma]) {
            (rfc850(rest)?, true)
        } else {
            return None;
        }
    } else {
        (asctime(text)?, false)
    };
    let civil = |year: i16| {
        // A leap second is the end of the second before.
        let second = date.second.min(59);
        let time = DateTime::new(year, date.month, date.day, date.hour, date.minute, second, 0).ok()?;
        Some(Offset::UTC.to_timestamp(time).ok()?.as_second())
    };
    let mut second = civil(date.year)?;
    let latest = i64::try_from(now).ok()?.saturating_add(AHEAD * 31_556_952);
    if short_year && second > latest {
        second = civil(date.year - 100)?;
    }
    u64::try_from(second).ok()
}

/// Writes a date of `unix` seconds since 1970.
pub fn format(unix: u64) -> HeaderValue {
    let timestamp = i64::try_from(unix).ok().and_then(|second| Timestamp::from_second(second).ok());
    let text = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&timestamp.unwrap_or(Timestamp::UNIX_EPOCH));
    text.ok()
        .and_then(|text| HeaderValue::try_from(text).ok())
        .unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

struct Date {
    year: i16,
    month: i8,
    day: i8,
    hour: i8,
    minute: i8,
    second: i8,
}

/// `18 aug 2050 02:01:18 gmt`.
fn fixdate(text: &[u8]) -> Option<Date> {
    let [d0, d1, b' ', m0, m1, m2, b' ', y0, y1, y2, y3, b' ', time @ .., b' ', b'g', b'm', b't'] = text else {
        return None;
    };
    let year = number(&[*y0, *y1, *y2, *y3])?;
    dated(year, &[*m0, *m1, *m2], number(&[*d0, *d1])?, time)
}

/// `18-aug-50 02:01:18 gmt`.
fn rfc850(text: &[u8]) -> Option<Date> {
    let [d0, d1, b'-', m0, m1, m2, b'-', y0, y1, b' ', time @ .., b' ', b'g', b'm', b't'] = text else {
        return None;
    };
    let year = number(&[*y0, *y1])? + 2000;
    dated(year, &[*m0, *m1, *m2], number(&[*d0, *d1])?, time)
}

/// `thu aug  8 02:01:18 2050`.
fn asctime(text: &[u8]) -> Option<Date> {
    let [w0, w1, w2, b' ', m0, m1, m2, b' ', d0, d1, b' ', time @ .., b' ', y0, y1, y2, y3] = text else {
        return None;
    };
    if !DAYS.contains(&&[*w0, *w1, *w2][..]) {
        return None;
    }
    let day = if *d0 == b' ' { number(&[*d1])? } else { number(&[*d0, *d1])? };
    dated(number(&[*y0, *y1, *y2, *y3])?, &[*m0, *m1, *m2], day, time)
}

fn dated(year: i16, month: &[u8], day: i16, time: &[u8]) -> Option<Date> {
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let [h0, h1, b':', m0, m1, b':', s0, s1] = time else { return None };
    let part = |high: &u8, low: &u8, most: i16| {
        number(&[*high, *low]).filter(|number| *number <= most).and_then(|number| i8::try_from(number).ok())
    };
    Some(Date {
        year,
        month: i8::try_from(month).ok()?,
        day: i8::try_from(day).ok()?,
        hour: part(h0, h1, 23)?,
        minute: part(m0, m1, 59)?,
        second: part(s0, s1, 60)?,
    })
}

fn number(digits: &[u8]) -> Option<i16> {
    digits.iter().try_fold(0i16, |number, byte| {
        byte.is_ascii_digit().then(|| number.checked_mul(10)?.checked_add(i16::from(byte - b'0'))).flatten()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn three_formats() {
        let expected = 2_544_400_878;
        for text in [
            "Thu, 18 Aug 2050 02:01:18 GMT",
            "THU, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 AUG 2050 02:01:18 gMT",
            "Mon, 18 Aug 2050 02:01:18 GMT",
            "Thursday, 18-Aug-50 02:01:18 GMT",
            "Thu Aug 18 02:01:18 2050",
            " Thu, 18 Aug 2050 02:01:18 GMT ",
        ] {
            assert_eq!(parse(text.as_bytes(), NOW), Some(expected), "{text}");
        }
        assert_eq!(parse(b"Thu Aug  8 02:01:18 2050", NOW), Some(expected - 10 * 86_400));
        assert_eq!(parse(b"Sat, 31 Dec 2016 23:59:60 GMT", NOW), Some(1_483_228_799));
        // More than 50 years ahead is a date of the last century; before 1970 there is none.
        assert_eq!(parse(b"Sunday, 06-Nov-94 08:49:37 GMT", NOW), Some(784_111_777));
        assert_eq!(parse(b"Thursday, 01-Jan-60 00:00:00 GMT", 0), None);
    }

    #[test]
    fn whatever_else_is_no_date() {
        for text in [
            "",
            "0",
            "-1",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 32 Aug 2050 02:01:18 GMT",
            "Thu, 00 Aug 2050 02:01:18 GMT",
            "Thu, 29 Feb 2049 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:61 GMT",
            "Thu, 18 Aug 1950 02:01:18 GMT",
            "Xyz, 18 Aug 2050 02:01:18 GMT",
        ] {
            assert_eq!(parse(text.as_bytes(), NOW), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(unix in 0u64..253_402_300_799) {
            prop_assert_eq!(parse(format(unix).as_bytes(), NOW), Some(unix));
        }

        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..40), unix: u64) {
            let _ = (parse(&text, unix), format(unix));
        }

        #[test]
        fn nearly_a_date_never_panics(text in "(Mon|Sunday|X), [0-9]{1,2}[ -][A-Z][a-z]{2}[ -][0-9]{2,4} [0-9:]{8} GMT", unix: u64) {
            let _ = parse(text.as_bytes(), unix);
        }
    }
}

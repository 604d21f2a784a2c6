//! So many in each second, minute, hour, day or month of the calendar (UTC): the count begins anew at the boundary.
//!
//! A period holds its first instant and not that of the next one. A refused request is not counted.

use std::{str::FromStr, time::Duration};

use super::{InvalidQuota, Verdict, policy::Arithmetic};

/// A unit of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalendarPeriod {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day, from midnight.
    Day,
    /// A month, from its first midnight.
    Month,
}

impl CalendarPeriod {
    /// Every one, and its name.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Second, "second"),
        (Self::Minute, "minute"),
        (Self::Hour, "hour"),
        (Self::Day, "day"),
        (Self::Month, "month"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(period, _)| *period == self).map_or("", |(_, name)| name)
    }

    /// The longest that it can be, in seconds.
    pub fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Month => 31 * 86_400,
        }
    }

    /// The number of the period that holds this second since 1970, and the second in which the next one begins.
    pub fn at(self, unix: u64) -> (u64, u64) {
        if self == Self::Month {
            let month = month(unix / 86_400);
            return (month, first_day(month + 1) * 86_400);
        }
        let number = unix / self.seconds();
        (number, (number + 1) * self.seconds())
    }
}

impl FromStr for CalendarPeriod {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(period, _)| *period).ok_or(())
    }
}

/// Days in 400 years of the Gregorian calendar, after which it repeats.
const ERA: u64 = 146_097;
/// From the first of March of the year 0 to 1970.
const EPOCH: u64 = 719_468;

/// The month that holds this day since 1970, counted from 1970. A year begins in March here, so that its leap day is its last.
fn month(day: u64) -> u64 {
    let day = day + EPOCH;
    let (era, of_era) = (day / ERA, day % ERA);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // Months since March of the year 0.
    let months = (era * 400 + year) * 12 + (5 * of_year + 2) / 153;
    months + 2 - 1_970 * 12
}

/// The first day of a month.
fn first_day(month: u64) -> u64 {
    let months = month + 1_970 * 12 - 2;
    let (years, month) = (months / 12, months % 12);
    let (era, year) = (years / 400, years % 400);
    era * ERA + year * 365 + year / 4 - year / 100 + (153 * month + 2) / 5 - EPOCH
}

/// Who counts may have read the clock so many seconds ago.
const LATE: u64 = 5;

/// `count` in each period of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalendarQuota {
    count: u32,
    per: CalendarPeriod,
}

impl CalendarQuota {
    /// Allows `count` in each `per`.
    ///
    /// # Errors
    /// A count of zero.
    pub fn new(count: u32, per: CalendarPeriod) -> Result<Self, InvalidQuota> {
        if count == 0 { Err(InvalidQuota::NoCount) } else { Ok(Self { count, per }) }
    }

    /// How many are allowed in a period.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The period.
    pub fn per(&self) -> CalendarPeriod {
        self.per
    }

    /// What the state of a key holds (see [`Table::state`](super::Table::state)): the number of a period, and what passed in it.
    pub fn read(state: u64) -> (u64, u32) {
        (state >> 32, u32::try_from(state & u64::from(u32::MAX)).unwrap_or(u32::MAX))
    }

    /// The words for `used` of a period that ends after `left`. `refused`: one more did not pass.
    pub fn verdict_in(&self, used: u32, left: Duration, refused: bool) -> Verdict {
        Verdict {
            limit: self.count,
            remaining: self.count.saturating_sub(used),
            reset: if used == 0 { Duration::ZERO } else { left },
            retry: refused.then_some(left),
        }
    }
}

/// A decision.
#[derive(Clone, Copy)]
pub struct CalendarStep {
    used: u32,
    next: Option<u64>,
    refused: bool,
    never: bool,
    now: u64,
}

impl super::Policy for CalendarQuota {}

impl Arithmetic for CalendarQuota {
    type Step = CalendarStep;

    fn clock(moment: super::Moment) -> Duration {
        moment.unix
    }

    fn instant(&self, now: Duration) -> u64 {
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    }

    fn unused(&self, now: u64) -> u64 {
        self.per.at(now / 1_000_000_000).0 << 32
    }

    fn step(&self, state: u64, now: u64, cost: u32, most: u32) -> CalendarStep {
        let (number, _) = self.per.at(now / 1_000_000_000);
        let (of, used) = Self::read(state);
        // Another thread read the clock later, or it was set back a little: what was counted then stays. When it was set back by
        // more, that must not lock anybody out until it is as late again.
        let latest = self.per.at((now / 1_000_000_000).saturating_add(LATE)).0.max(number + 1);
        let (number, used) = if (number..=latest).contains(&of) { (of, used) } else { (number, 0) };
        let (most, step) = (most.min(self.count), CalendarStep { used, next: None, refused: false, never: false, now });
        if cost == 0 {
            return step;
        }
        if most.checked_sub(used).is_none_or(|room| cost > room) {
            return CalendarStep { refused: true, never: cost > most, ..step };
        }
        CalendarStep { used: used + cost, next: Some(number << 32 | u64::from(used + cost)), ..step }
    }

    fn next(step: CalendarStep) -> Option<u64> {
        step.next
    }

    fn verdict(&self, step: CalendarStep) -> Verdict {
        let now = Duration::from_nanos(step.now);
        let end = Duration::from_secs(self.per.at(now.as_secs()).1);
        let verdict = self.verdict_in(step.used, end.saturating_sub(now), step.refused);
        if step.never { Verdict { retry: Some(Verdict::NEVER), ..verdict } } else { verdict }
    }

    fn most(&self) -> u32 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::Table;

    /// 2024-02-29 00:00:00.
    const LEAP_DAY: u64 = 1_709_164_800;

    fn table(count: u32, per: CalendarPeriod) -> Table<CalendarQuota> {
        Table::new(CalendarQuota::new(count, per).unwrap(), 100)
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let month = CalendarPeriod::Month;
        // 1970-01, then 2000-02 (a leap year of a century), 2024-02, 2100-02 (no leap year).
        assert_eq!(month.at(0), (0, 31 * 86_400));
        assert_eq!(month.at(951_782_400), (30 * 12 + 1, 951_868_800));
        assert_eq!(month.at(LEAP_DAY + 86_399), (54 * 12 + 1, LEAP_DAY + 86_400));
        assert_eq!(month.at(LEAP_DAY + 86_400).0, 54 * 12 + 2);
        assert_eq!(month.at(4_107_456_000), (130 * 12 + 1, 4_107_542_400));
    }

    #[test]
    fn a_quota_begins_anew_at_the_boundary_and_not_before() {
        let table = table(3, CalendarPeriod::Day);
        let end = Duration::from_secs(LEAP_DAY + 86_400);
        let last = end.saturating_sub(Duration::from_nanos(1));
        assert_eq!((0..5).filter(|_| table.take(1, 1, last).allowed()).count(), 3);
        let refused = table.take(1, 1, last);
        assert_eq!((refused.retry, refused.reset), (Some(Duration::from_nanos(1)), Duration::from_nanos(1)));
        assert_eq!((0..5).filter(|_| table.take(1, 1, end).allowed()).count(), 3);
        assert_eq!(table.take(1, 1, end).retry, Some(Duration::from_secs(86_400)));
        assert!(table.take(1, 4, end).never() && table.take(2, 3, end).allowed());
    }

    #[test]
    fn a_clock_that_is_set_back_gives_nothing_away_and_locks_nobody_out() {
        let table = table(2, CalendarPeriod::Day);
        let day = |day: u64| Duration::from_secs(LEAP_DAY + day * 86_400);
        assert!(table.take(1, 2, day(1)).allowed());
        assert!(!table.take(1, 1, day(0)).allowed(), "yesterday again");
        assert!(table.take(1, 1, day(900)).allowed() && table.take(1, 1, day(2)).allowed());
        let seconds = self::table(2, CalendarPeriod::Second);
        assert!(seconds.take(1, 2, Duration::from_secs(100)).allowed());
        for late in 95..100 {
            assert!(!seconds.take(1, 1, Duration::from_secs(late)).allowed(), "whoever has waited does not begin anew");
        }
        assert!(!seconds.take(1, 1, Duration::from_secs(100)).allowed());
        assert!(seconds.take(1, 1, Duration::from_secs(94)).allowed());
    }

    proptest! {
        #[test]
        fn every_second_lies_in_one_period(unix in 0u64..8_000_000_000, period in 0usize..5) {
            let period = CalendarPeriod::ALL[period].0;
            let (number, end) = period.at(unix);
            prop_assert!(unix < end && end - unix <= period.seconds());
            prop_assert_eq!(period.at(end - 1), (number, end));
            prop_assert_eq!(period.at(end).0, number + 1);
        }
    }
}

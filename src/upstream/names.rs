//! What is known of the names among a service's URLs, and of those that SRV records name. Each is looked up by itself: a
//! name whose server does not answer keeps the others waiting for nothing, what is found is used at once, and a name that
//! cannot be resolved keeps the addresses it had. What is known of a name is no business of its URL's weight.

use std::{fmt, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    known_names::{Found, Known, Name},
    lookup::{Dns, Lookup, Question},
    url::BackendUrl,
};

/// The shortest time between two looks at a name, whatever its time to live; and the first pause after a failure.
const SOON: Duration = Duration::from_secs(1);

/// Targets that an SRV name has no longer stay in use for so long at most, until those in their place have been looked up:
/// where all have changed there would be no backend meanwhile.
const STAY: Duration = Duration::from_secs(2);

/// The names of a service.
pub(crate) struct Names {
    /// What the names in URLs are.
    kind: Dns,
    /// The longest time between two looks.
    every: Duration,
    known: Mutex<Known>,
}

// What has been found is no setting.
impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("every", &self.every).finish_non_exhaustive()
    }
}

impl Names {
    /// No names; `every` is the longest time between two looks at one.
    pub(crate) fn new(kind: Dns, every: Duration) -> Self {
        Self { kind, every, known: Mutex::default() }
    }

    fn question(&self, url: &BackendUrl) -> Question {
        Question { kind: self.kind, name: url.host.clone() }
    }

    /// Knows the names among `urls`, and no others. What `before` has found of them holds until they have been looked up.
    pub(crate) fn follow(&self, urls: &[BackendUrl], before: Option<&Self>) {
        let before = before.map(|before| before.known.lock());
        let mut known = self.known.lock();
        known.asked = urls.iter().filter(|url| url.address().is_none()).map(|url| self.question(url)).collect();
        known.complete(before.as_deref());
    }

    /// The backends that a name stands for, by the last look that succeeded.
    pub(crate) fn of(&self, url: &BackendUrl) -> Vec<Found> {
        self.known.lock().of(url, &self.question(url))
    }

    /// What is due at `now`; whoever asks looks it up.
    pub(crate) fn take_due(&self, now: Instant) -> Vec<Question> {
        let mut known = self.known.lock();
        let is_due = |name: &Name| !name.looking && name.due.is_none_or(|due| due <= now);
        let due = known.names.iter_mut().filter(|(_, name)| is_due(name));
        due.map(|(question, name)| {
            name.looking = true;
            question.clone()
        })
        .collect()
    }

    /// Nobody is looking any more.
    pub(crate) fn give_back(&self) {
        self.known.lock().names.values_mut().for_each(|name| name.looking = false);
    }

    /// When there is something to do: a name is due, or a target leaves.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        let known = self.known.lock();
        let due = known.names.values().filter(|name| !name.looking).map(|name| name.due.unwrap_or(now));
        let leaving = known.names.values().flat_map(|name| &name.leaving).map(|(_, until)| *until);
        due.chain(leaving.filter(|until| *until > now)).min()
    }

    /// Lets targets go that are no longer in an answer and need not stay; true when some have gone.
    pub(crate) fn leave(&self, now: Instant) -> bool {
        Self::let_go(&mut self.known.lock(), now)
    }

    fn let_go(known: &mut Known, now: Instant) -> bool {
        let over = known.names.iter().filter(|(_, name)| known.may_leave(name, now));
        let over: Vec<Question> = over.map(|(question, _)| question.clone()).collect();
        for question in &over {
            known.names.entry(question.clone()).and_modify(|name| name.leaving.clear());
        }
        if !over.is_empty() {
            known.complete(None);
        }
        !over.is_empty()
    }

    /// True when each has been looked up; with `success`, when each that a URL asks for has been found, too.
    pub(crate) fn all_looked_up(&self, success: bool) -> bool {
        let known = self.known.lock();
        let found = || known.asked.iter().all(|question| known.is_found(question));
        known.names.values().all(Name::is_looked_up) && (!success || found())
    }

    /// The names whose last look failed, why, and for how long that has been so at `now`.
    pub(crate) fn failing(&self, now: Instant) -> Vec<(String, String, Duration)> {
        let known = self.known.lock();
        let failing = known.names.iter().filter_map(|(question, name)| {
            let (since, reason) = name.failing.clone()?;
            let shown = question.name.trim_end_matches('.').to_owned();
            Some((shown, reason, now.saturating_duration_since(since)))
        });
        let mut all: Vec<_> = failing.collect();
        all.sort();
        all
    }

    /// Takes in what a look has come to.
    pub(crate) fn learn(&self, question: &Question, result: Result<Lookup, String>, now: Instant) -> News {
        let mut known = self.known.lock();
        let Some(name) = known.names.get_mut(question) else { return News::default() };
        name.looking = false;
        let shown = question.name.trim_end_matches('.');
        let mut news = News::default();
        match result {
            Ok(Lookup { answer, until, useless }) => {
                news.changed = name.answered(answer, now + STAY);
                name.due = Some(until.map_or(now + self.every, |until| until.min(now + self.every)).max(now + SOON));
                name.failing = None;
                if std::mem::take(&mut name.failures) > 0 {
                    news.changed = true;
                    news.messages.push(format!("'{shown}' can be resolved again"));
                }
                if name.useless != useless {
                    news.messages.extend(useless.iter().map(|part| format!("'{shown}': {part}")));
                    name.useless = useless;
                }
            }
            Err(reason) => {
                // A server that is busy for a moment must not be felt for as long as names are good for.
                name.due = Some(now + (SOON * 2u32.saturating_pow(name.failures)).min(self.every));
                name.failures += 1;
                let since = name.failing.take().map_or(now, |(since, _)| since);
                name.failing = Some((since, reason.clone()));
                if name.failures == 1 {
                    // What is shown of it.
                    news.changed = true;
                    news.messages.push(format!("cannot resolve '{shown}': {reason}"));
                }
            }
        }
        if news.changed {
            known.complete(None);
            Self::let_go(&mut known, now);
        }
        news
    }
}

/// What a look has brought.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// The name, or a target of it, stands for something else than before.
    pub(crate) changed: bool,
    /// What there is to say: changes only.
    pub(crate) messages: Vec<String>,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::{
        super::lookup::{Answer, Target},
        *,
    };

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn addresses(of: &[&str], until: Option<Instant>) -> Lookup {
        let answer = Answer::Addresses(of.iter().map(|ip| ip.parse().unwrap()).collect());
        Lookup { answer, until, useless: Vec::new() }
    }

    fn services(hosts: &[&str]) -> Lookup {
        let target = |host: &&str| Target { host: (*host).to_owned(), port: 80, weight: 1 };
        Lookup { answer: Answer::Services(hosts.iter().map(target).collect()), until: None, useless: Vec::new() }
    }

    fn name(kind: Dns, name: &str) -> Question {
        Question { kind, name: name.to_owned() }
    }

    #[test]
    fn a_failure_is_tried_again_soon_and_said_once() {
        let url: BackendUrl = "http://a.test:80".parse().unwrap();
        let names = Names::new(Dns::A, seconds(30));
        names.follow(std::slice::from_ref(&url), None);
        let (now, asked) = (Instant::now(), name(Dns::A, "a.test"));
        assert_eq!(names.take_due(now), std::slice::from_ref(&asked));
        assert!(names.take_due(now).is_empty(), "somebody looks already");
        let good = |ttl| Ok(addresses(&["192.0.2.1"], Some(now + seconds(ttl))));
        assert!(names.learn(&asked, good(5), now).messages.is_empty());
        assert_eq!(names.next(now), Some(now + seconds(5)), "its time to live");
        assert!(names.learn(&asked, Err("no".to_owned()), now).messages[0].contains("cannot resolve 'a.test'"));
        let mut pauses = Vec::new();
        for _ in 0..6 {
            pauses.push((names.next(now).unwrap() - now).as_secs());
            assert!(names.learn(&asked, Err("no".to_owned()), now).messages.is_empty());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30]);
        assert_eq!(names.failing(now + SOON), [("a.test".to_owned(), "no".to_owned(), SOON)]);
        assert_eq!(names.of(&url).len(), 1, "it keeps what it had");
        assert!(names.all_looked_up(false) && !names.all_looked_up(true));
        assert!(names.learn(&asked, good(0), now).messages[0].contains("again"));
        assert_eq!(names.next(now), Some(now + SOON));
        let news = names.learn(&asked, good(600), now);
        assert!(news.messages.is_empty() && !news.changed, "the same addresses are no change");
        assert_eq!(names.next(now), Some(now + seconds(30)), "'every' bounds it");
        let next = Names::new(Dns::A, seconds(30));
        next.follow(std::slice::from_ref(&url), Some(&names));
        assert_eq!(next.of(&url), names.of(&url));
        // Another weight is no other name.
        let heavier = BackendUrl { weight: 7, ..url };
        names.follow(std::slice::from_ref(&heavier), None);
        let found = names.of(&heavier);
        assert_eq!((found.len(), found[0].url.weight, found[0].source.weight), (1, 7, 7));
        assert!(names.all_looked_up(true));
    }

    #[test]
    fn each_target_of_records_is_a_name_of_its_own() {
        let url: BackendUrl = "http://users.test".parse().unwrap();
        let names = Names::new(Dns::Srv, seconds(30));
        names.follow(std::slice::from_ref(&url), None);
        let now = Instant::now();
        let (asked, one, two) = (name(Dns::Srv, "users.test"), name(Dns::A, "one.test."), name(Dns::A, "two.test."));
        assert_eq!(names.take_due(now), std::slice::from_ref(&asked));
        names.learn(&asked, Ok(services(&["one.test.", "two.test."])), now);
        assert!(names.of(&url).is_empty() && !names.all_looked_up(false));
        assert_eq!(names.take_due(now).len(), 2, "side by side");
        names.learn(&one, Ok(addresses(&["192.0.2.1"], None)), now);
        assert_eq!(names.of(&url)[0].url.host, "one.test", "used at once");
        assert!(names.learn(&two, Err("no".to_owned()), now).messages[0].contains("cannot resolve 'two.test'"));
        assert!(names.all_looked_up(true), "one that is gone takes no other with it");
        assert_eq!(names.next(now), Some(now + SOON));
        names.learn(&two, Ok(addresses(&["192.0.2.2"], None)), now);
        names.learn(&two, Err("no".to_owned()), now);
        assert_eq!(names.of(&url).len(), 2, "it keeps what it had");
        // All of them change: the old ones stay until the new ones are known, or do not answer.
        let (three, four) = (name(Dns::A, "three.test."), name(Dns::A, "four.test."));
        names.learn(&asked, Ok(services(&["three.test.", "four.test."])), now);
        assert_eq!(names.of(&url).len(), 2);
        names.learn(&three, Ok(addresses(&["192.0.2.3"], None)), now);
        assert_eq!(names.of(&url).len(), 3);
        assert!(!names.leave(now) && names.leave(now + STAY));
        assert_eq!(names.of(&url).len(), 1, "the fourth does not answer");
        names.learn(&four, Ok(addresses(&["192.0.2.4"], None)), now);
        assert_eq!(names.of(&url).len(), 2);
        names.learn(&asked, Ok(services(&["four.test."])), now);
        assert_eq!(names.of(&url)[0].url.host, "four.test", "nobody has to be waited for");
    }

    #[test]
    fn targets_that_have_left_stay_until_those_in_their_place_are_found() {
        let url: BackendUrl = "http://users.test".parse().unwrap();
        let names = Names::new(Dns::Srv, seconds(30));
        names.follow(std::slice::from_ref(&url), None);
        let now = Instant::now();
        let (asked, one, two) = (name(Dns::Srv, "users.test"), name(Dns::A, "one.test."), name(Dns::A, "two.test."));
        names.learn(&asked, Ok(services(&["one.test."])), now);
        names.learn(&one, Ok(addresses(&["192.0.2.1"], None)), now);
        // A short time to live: the same answer comes again before the new target is known.
        names.learn(&asked, Ok(services(&["two.test."])), now);
        assert!(!names.learn(&asked, Ok(services(&["two.test."])), now + SOON).changed);
        assert_eq!(names.of(&url)[0].url.host, "one.test");
        names.learn(&two, Err("no".to_owned()), now);
        assert!(!names.leave(now + STAY * 9), "there is nobody in its place");
        assert_eq!(names.of(&url)[0].url.host, "one.test");
        assert!(names.next(now + STAY * 9).unwrap() > now, "and nothing to be done about it");
        assert!(names.learn(&two, Ok(addresses(&["192.0.2.2"], None)), now + STAY * 9).changed);
        assert_eq!(names.of(&url).len(), 1);
        assert_eq!(names.of(&url)[0].url.host, "two.test");
        // One that comes back before it has gone is there once.
        names.learn(&asked, Ok(services(&["three.test."])), now);
        names.learn(&asked, Ok(services(&["two.test."])), now);
        assert_eq!(names.of(&url).len(), 1);
    }
}

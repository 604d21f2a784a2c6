//! What one gateway knows of purges: of all that there were, and its own that others have not heard of.

use std::{sync::Arc, time::Duration};

use crate::{
    cache::{
        purge::{Manner, Purge},
        purged::Purged,
        query::QueryRule,
    },
    clock::Now,
    store::Purges,
};

/// Who has not heard of purges for so long gives nothing: three looks.
const DEAF: Duration = Duration::from_secs(3);

/// So many purges wait to be told; more become one of everything.
const WAITING: usize = 1024;

/// Each answer begins with the epoch, so many characters, and the number of a purge.
const EPOCH: usize = 16;
pub(super) const STAMP: usize = EPOCH + size_of::<u64>();

/// Each purge begins with who has made it.
pub(super) const NODE: usize = size_of::<u64>();

/// What had been purged when an answer was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierTicket(pub(super) [u8; STAMP]);

/// What is known of purges.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    pub(super) epoch: String,
    pub(super) number: u64,
    table: Purged,
    /// When that was, last.
    at: Option<Duration>,
    /// Our own that nobody has been told of, and those that are being told.
    waiting: Vec<(Purge, Manner)>,
    pub(super) telling: Vec<(Purge, Manner)>,
}

impl Heard {
    /// What an answer begins with that is asked for now; `None` before anything has been heard.
    pub(super) fn stamp(&self) -> Option<TierTicket> {
        let epoch: [u8; EPOCH] = self.epoch.as_bytes().try_into().ok()?;
        let mut stamp = [0; STAMP];
        let (first, last) = stamp.split_at_mut(EPOCH);
        first.copy_from_slice(&epoch);
        last.copy_from_slice(&self.number.to_le_bytes());
        Some(TierTicket(stamp))
    }

    /// True when no purge that came after this ticket is about such an answer.
    pub(super) fn lets_pass(&self, ticket: &TierTicket, url: &str, tags: &[Arc<[u8]>]) -> bool {
        let (epoch, number) = ticket.0.split_at(EPOCH);
        let Ok(number) = number.try_into().map(u64::from_le_bytes) else { return false };
        let deaf = self.at.is_none_or(|at| Now::monotonic().saturating_sub(at) > DEAF);
        !deaf
            && epoch == self.epoch.as_bytes()
            && !self.table.was(number, url, tags)
            && !self.waiting.iter().chain(&self.telling).any(|(purge, _)| purge.is_about(url, tags))
    }

    /// A purge of ours, which others are to be told of.
    pub(super) fn add(&mut self, purge: &Purge, manner: Manner) {
        if self.waiting.len() >= WAITING {
            self.waiting.clear();
            self.waiting.push((Purge::All, Manner::Hard));
        } else if !self.waiting.contains(&(purge.clone(), manner)) {
            self.waiting.push((purge.clone(), manner));
        }
    }

    /// True when there are purges of ours that others may not have heard of.
    pub(super) fn has_untold(&self) -> bool {
        !(self.waiting.is_empty() && self.telling.is_empty())
    }

    /// What waits is told, with what has been told in vain.
    pub(super) fn begin_to_tell(&mut self) {
        self.telling.append(&mut self.waiting);
        if self.telling.len() > WAITING {
            self.telling = vec![(Purge::All, Manner::Hard)];
        }
    }

    /// Takes in what the store has said; gives back what is new here and not of this `node`, under each of these rules, and
    /// whether it may be anything.
    pub(super) fn hear(
        &mut self,
        purges: Purges,
        node: [u8; NODE],
        rules: &[QueryRule],
        at: Duration,
    ) -> (Vec<(Purge, Manner)>, bool) {
        self.at = Some(at);
        self.telling.clear();
        let is_first = self.epoch.is_empty();
        let known = purges.since.filter(|since| {
            is_first || purges.epoch == self.epoch && self.number.saturating_add(since.len() as u64) == purges.number
        });
        (self.epoch, self.number) = (purges.epoch, purges.number);
        let Some(since) = known else {
            // What was purged meanwhile is not known: it may have been anything.
            self.table.begin_at(self.number);
            return (vec![(Purge::All, Manner::Hard)], true);
        };
        if is_first {
            // What was asked for before the first of them may have been purged by others.
            self.table.begin_at(self.number.saturating_sub(since.len() as u64));
        }
        let mut news = Vec::new();
        for record in &since {
            let (by, record) = record.split_at(NODE.min(record.len()));
            let (purge, manner) = Purge::read(record);
            let all = purge.by_rules(rules);
            self.table.add_all(&all);
            if by != node {
                news.extend(all.into_iter().map(|purge| (purge, manner)));
            }
        }
        // What is in memory may have come before the first of them.
        if is_first { (vec![(Purge::All, Manner::Hard)], true) } else { (news, false) }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const NODE_A: [u8; NODE] = [1; NODE];
    const NODE_B: [u8; NODE] = [2; NODE];
    const EPOCH_A: &str = "aaaaaaaaaaaaaaaa";

    fn said(epoch: &str, number: u64, since: Option<&[([u8; NODE], &str)]>) -> Purges {
        let record =
            |(node, url): &([u8; NODE], &str)| [&node[..], &Purge::Url((*url).to_owned()).write(Manner::Hard)].concat();
        Purges { epoch: epoch.to_owned(), number, since: since.map(|since| since.iter().map(record).collect()) }
    }

    fn hear(heard: &mut Heard, purges: Purges) -> Vec<Purge> {
        heard.hear(purges, NODE_A, &[], Now::monotonic()).0.into_iter().map(|(purge, _)| purge).collect()
    }

    #[test]
    fn an_answer_is_given_unless_something_about_it_was_purged_since() {
        let mut heard = Heard::default();
        assert_eq!(heard.stamp(), None, "nobody has been heard");
        assert_eq!(hear(&mut heard, said(EPOCH_A, 7, None)), [Purge::All], "what there was is not known");
        let ticket = heard.stamp().unwrap();
        assert!(heard.lets_pass(&ticket, "http://a/x", &[]));
        let purges = said(EPOCH_A, 9, Some(&[(NODE_A, "http://a/x"), (NODE_B, "http://a/y")]));
        assert_eq!(hear(&mut heard, purges), [Purge::Url("http://a/y".to_owned())], "its own it has carried out");
        for (url, passes) in [("http://a/x", false), ("http://a/y", false), ("http://a/z", true)] {
            assert_eq!(heard.lets_pass(&ticket, url, &[]), passes, "{url}");
        }
        assert!(heard.lets_pass(&heard.stamp().unwrap(), "http://a/x", &[]), "asked for afterwards");
    }

    #[test]
    fn whoever_comes_later_knows_of_what_is_remembered() {
        let mut old = Heard::default();
        let stamps: Vec<_> = [6, 7, 8].map(|number| (hear(&mut old, said(EPOCH_A, number, None)), old.stamp())).into();
        let mut new = Heard::default();
        let purges = said(EPOCH_A, 9, Some(&[(NODE_B, "http://a/x"), (NODE_B, "http://a/y")]));
        assert_eq!(hear(&mut new, purges), [Purge::All], "of what it has in memory it knows nothing");
        let passes = |stamp: usize, url: &str| new.lets_pass(stamps[stamp].1.as_ref().unwrap(), url, &[]);
        assert_eq!(["x", "y", "z"].map(|path| passes(0, &format!("http://a/{path}"))), [false; 3]);
        assert_eq!(["x", "y", "z"].map(|path| passes(1, &format!("http://a/{path}"))), [false, false, true]);
        assert_eq!(["x", "y", "z"].map(|path| passes(2, &format!("http://a/{path}"))), [true, false, true]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut heard = Heard::default();
        for n in 0..WAITING {
            heard.waiting.push((Purge::Url(n.to_string()), Manner::Soft));
        }
        heard.begin_to_tell();
        assert!(heard.telling.len() == WAITING && heard.waiting.is_empty());
        heard.waiting.push((Purge::Tag(b"t".to_vec()), Manner::Soft));
        heard.begin_to_tell();
        assert_eq!(heard.telling, [(Purge::All, Manner::Hard)]);
    }

    #[test]
    fn what_is_not_known_for_certain_is_not_given() {
        let mut heard = Heard::default();
        hear(&mut heard, said(EPOCH_A, 7, None));
        let ticket = heard.stamp().unwrap();
        let mut deaf = heard.clone();
        deaf.at = None;
        assert!(!deaf.lets_pass(&ticket, "u", &[]));
        let mut waiting = heard.clone();
        waiting.waiting.push((Purge::Url("u".to_owned()), Manner::Hard));
        assert!(!waiting.lets_pass(&ticket, "u", &[]) && waiting.lets_pass(&ticket, "v", &[]));
        for lost in [said("bbbbbbbbbbbbbbbb", 7, Some(&[])), said(EPOCH_A, 9, None), said(EPOCH_A, 9, Some(&[]))] {
            let mut heard = heard.clone();
            assert_eq!(hear(&mut heard, lost), [Purge::All]);
            assert!(!heard.lets_pass(&ticket, "u", &[]));
            assert!(heard.lets_pass(&heard.stamp().unwrap(), "u", &[]));
        }
    }
}

//! What is known of names, and of the names in their records.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use tokio::time::Instant;

use super::{
    lookup::{Answer, Question, Target},
    url::BackendUrl,
};

/// A backend that a URL stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The URL in the YAML, or in the file.
    pub(crate) source: BackendUrl,
    /// The backend's own: an SRV record names host and port.
    pub(crate) url: BackendUrl,
    pub(crate) address: SocketAddr,
}

/// One name with what is known of it.
#[derive(Default)]
pub(super) struct Name {
    /// By the last look that succeeded.
    pub(super) answer: Answer,
    /// Targets that are no longer in the answer, and until when each is used all the same.
    pub(super) leaving: Vec<(Target, Instant)>,
    /// Parts of the answer that are of no use, as they have been told.
    pub(super) useless: Vec<String>,
    /// When to look again; nobody has looked yet without it.
    pub(super) due: Option<Instant>,
    /// Somebody is looking.
    pub(super) looking: bool,
    /// Looks in a row that failed.
    pub(super) failures: u32,
    /// When the first of these was, and what the last one came to.
    pub(super) failing: Option<(Instant, String)>,
}

impl Name {
    /// The targets of its records, without those that are leaving.
    pub(super) fn current(&self) -> &[Target] {
        match &self.answer {
            Answer::Services(targets) => targets,
            Answer::Addresses(_) => &[],
        }
    }

    fn targets(&self) -> impl Iterator<Item = &Target> {
        self.current().iter().chain(self.leaving.iter().map(|(target, _)| target))
    }

    /// Takes in the answer of a look. Targets that it has no longer go on being used until `until`. True when something
    /// is otherwise than before.
    pub(super) fn answered(&mut self, answer: Answer, until: Instant) -> bool {
        if self.answer == answer {
            return false;
        }
        let before = std::mem::replace(&mut self.answer, answer);
        if let Answer::Services(targets) = before {
            self.leaving.extend(targets.into_iter().map(|target| (target, until)));
        }
        let Self { answer, leaving, .. } = self;
        if let Answer::Services(current) = answer {
            leaving.retain(|(target, _)| !current.iter().any(|new| new.is_same_place(target)));
        }
        true
    }

    /// It has been looked up, with or without success.
    pub(super) fn is_looked_up(&self) -> bool {
        self.due.is_some()
    }
}

/// The names of a service, and of the records of these names.
#[derive(Default)]
pub(super) struct Known {
    /// Those that URLs ask for.
    pub(super) asked: Vec<Question>,
    pub(super) names: HashMap<Question, Name>,
}

impl Known {
    /// Knows all names that are needed, and no others. What `before` knows of one that is new holds until it has been
    /// looked up.
    pub(super) fn complete(&mut self, before: Option<&Self>) {
        let (mut needed, mut open) = (HashSet::new(), self.asked.clone());
        while let Some(question) = open.pop() {
            if needed.contains(&question) {
                continue;
            }
            let name = self.names.entry(question.clone()).or_insert_with(|| {
                let answer = before.and_then(|before| before.names.get(&question)).map(|name| name.answer.clone());
                Name { answer: answer.unwrap_or_default(), ..Name::default() }
            });
            open.extend(name.targets().filter(|target| target.address().is_none()).map(Question::addresses));
            needed.insert(question);
        }
        self.names.retain(|question, _| needed.contains(question));
    }

    fn addresses(&self, target: &Target) -> Vec<IpAddr> {
        if let Some(address) = target.address() {
            return vec![address];
        }
        match self.names.get(&Question::addresses(target)).map(|name| &name.answer) {
            Some(Answer::Addresses(addresses)) => addresses.clone(),
            _ => Vec::new(),
        }
    }

    /// True when targets that have left an answer may go at `now`: each in their place has an address, or at least one
    /// has, and the others have had their time.
    pub(super) fn may_leave(&self, name: &Name, now: Instant) -> bool {
        let mut found = name.current().iter().map(|target| !self.addresses(target).is_empty());
        match name.leaving.iter().map(|(_, until)| until).max() {
            None => false,
            Some(until) if *until <= now => found.any(|found| found),
            Some(_) => found.all(|found| found),
        }
    }

    pub(super) fn of(&self, source: &BackendUrl, question: &Question) -> Vec<Found> {
        let Some(name) = self.names.get(question) else { return Vec::new() };
        let found = |url: BackendUrl, ip: IpAddr| {
            let address = SocketAddr::new(ip, url.port);
            Found { source: source.clone(), url, address }
        };
        if let Answer::Addresses(addresses) = &name.answer {
            return addresses.iter().map(|ip| found(source.clone(), *ip)).collect();
        }
        let of = |target| {
            let url = Target::url(target, source.scheme);
            self.addresses(target).into_iter().map(move |ip| found(url.clone(), ip))
        };
        name.targets().flat_map(of).collect()
    }

    /// True when a name stands for at least one address, and the last look at it succeeded.
    pub(super) fn is_found(&self, question: &Question) -> bool {
        self.names.get(question).is_some_and(|name| {
            let any = match &name.answer {
                Answer::Addresses(addresses) => !addresses.is_empty(),
                Answer::Services(targets) => targets.iter().any(|target| !self.addresses(target).is_empty()),
            };
            any && name.failures == 0
        })
    }
}

//! Typing a tree, and finding every mistake in it.

use serde::de::DeserializeOwned;

use super::{Node, de};
use crate::{units::Problems, yaml::set_aside::SetAside};

/// More problems than anybody reads at once.
const MAX_PROBLEMS: usize = 200;

/// What serde says of a mapping whose only entry has been set aside.
const EMPTIED: &str = "invalid type: map";

/// Types `node` as `T`. The value, when there is one, lacks whatever was wrong; the problems say what that was.
pub(crate) fn read<T: DeserializeOwned>(node: &Node) -> (Option<T>, Problems) {
    let mut problems = Problems::default();
    let aside = SetAside::default();
    for _ in 0..MAX_PROBLEMS * 2 {
        let fault = match T::deserialize(de::De::new(node, &aside)) {
            Ok(value) => return (Some(value), problems),
            Err(fault) => fault,
        };
        let culprit = fault.culprit.unwrap_or_else(|| node.clone());
        // A field is also "missing" when it was there and was set aside: that mistake has been reported already.
        let emptied = fault.message.starts_with(EMPTIED) && aside.has_part_of(&culprit);
        if !fault.consequence && !emptied {
            let place = fault.place.as_ref().unwrap_or_else(|| culprit.place());
            problems.push(place.problem(fault.message));
        }
        if problems.len() >= MAX_PROBLEMS {
            let message = format!("{MAX_PROBLEMS} problems are enough for once: there may be more");
            problems.push(node.place().problem(message));
        }
        if culprit.id() == node.id() || !aside.add(&culprit) || problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    (None, problems)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::{
        units::{Rate, Span},
        yaml::{Spanned, parse},
    };

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Limit {
        rate: Rate,
        #[serde(default)]
        burst: Option<u32>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Balance {
        RoundRobin,
        Hash(String),
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Root {
        #[serde(default)]
        limits: Vec<Spanned<Limit>>,
        #[serde(default)]
        wait: Option<Span>,
        #[serde(default)]
        balance: BTreeMap<String, Balance>,
        #[serde(default)]
        any: serde_json::Value,
    }

    fn problems(yaml: &str) -> Vec<String> {
        let (node, _) = parse(yaml, &|_| None).unwrap();
        let (_, problems) = read::<Root>(&node);
        problems.sorted().iter().map(|p| format!("{}:{}: {p}", p.line, p.column)).collect()
    }

    #[test]
    fn reports_every_mistake_at_once() {
        let yaml = "limits:\n  - { rate: 10/s, brust: 3 }\n  - { rate: ten }\n  - { burst: x }\nwiat: 1s\nwait: 5\n";
        assert_eq!(
            problems(yaml),
            [
                "2:19: limits[0]: unknown key 'brust' (did you mean 'burst'?)",
                "3:13: limits[1].rate: 'ten' is not a rate: write it like 10/s, 600/m, 5000/10m",
                "4:5: limits[2]: key 'rate' is missing",
                "4:14: limits[2].burst: expected a whole number from 0 to 4294967295, found 'x'",
                "5:1: unknown key 'wiat' (did you mean 'wait'?)",
                "6:7: wait: '5' is not a duration: write it like 250ms, 5s, 1h30m (units us, ms, s, m, h, d)",
            ]
        );
    }

    #[test]
    fn enums_by_word_and_by_key() {
        let yaml = "balance: { a: round_robin, b: { hash: x } }\nany: { n: 1, t: yes, b: true, l: [~, 1.5] }";
        let (root, problems) = read::<Root>(&parse(yaml, &|_| None).unwrap().0);
        let root = root.unwrap();
        assert!(problems.is_empty() && matches!(root.balance["a"], Balance::RoundRobin));
        assert!(matches!(&root.balance["b"], Balance::Hash(by) if by == "x"));
        assert_eq!(root.any, serde_json::json!({ "n": 1, "t": "yes", "b": true, "l": [null, 1.5] }));
        assert_eq!(
            crate::yaml::read::tests::problems("balance: { a: roundrobin }"),
            ["1:15: balance.a: unknown value 'roundrobin' (did you mean 'round_robin'?)"]
        );
    }

    #[test]
    fn a_typed_value_remembers_its_place() {
        let (root, _) = read::<Root>(&parse("limits:\n  - { rate: bad }\n  - { rate: 1/s }\n", &|_| None).unwrap().0);
        let root = root.unwrap();
        assert_eq!((root.limits.len(), root.limits[0].place.path.as_str()), (1, "limits[1]"));
        assert_eq!((root.limits[0].rate.count, root.limits[0].burst, root.wait), (1, None, None));
    }
}

//! `--limit`: changes the limits on a model one by one.

use std::fmt::Write;

use skipstone::Limits;

/// A limit as the command line gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    name: String,
    value: u64,
}

/// Parses `NAME=VALUE`.
pub fn parse_limit(text: &str) -> Result<Limit, String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let value = value.parse().map_err(|_| format!("'{value}' is not a whole number"))?;
    Limits::default().set(name, value).map_err(|error| error.to_string())?;
    Ok(Limit { name: name.to_owned(), value })
}

/// The library's limits with the given changes.
pub fn limits(given: &[Limit]) -> Limits {
    let mut limits = Limits::default();
    for Limit { name, value } in given {
        // The parser has refused other names.
        let _ = limits.set(name, *value);
    }
    limits
}

/// The help of `--limit`: every limit with its default.
pub fn help() -> String {
    let mut help = "Change a limit for the model; give it once for each. Limits, and their defaults:\n".to_owned();
    for limit in Limits::table() {
        let _ = write!(help, "\n{:12}{:>13} {}, {}", limit.name, limit.default, limit.unit, limit.of);
    }
    help
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_by_name() {
        let given = ["memory=1000", "nodes=7"].map(|text| parse_limit(text).unwrap());
        let set = limits(&given);
        assert_eq!((set.memory_bytes, set.file.max_nodes), (1000, 7));
        assert_eq!(set.run_work, Limits::default().run_work);
        for text in ["memory", "memory=", "memory=-1", "memory=1k", "frobs=1"] {
            assert!(parse_limit(text).is_err(), "{text}");
        }
    }
}

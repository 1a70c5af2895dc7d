//! `--limit`: changes the limits on a model one by one.

use skipstone::Limits;

/// Name and field of each bound that the command line can set.
const NAMES: [(&str, Field); 11] = [
    ("memory", |limits| Bound::Long(&mut limits.memory_bytes)),
    ("work", |limits| Bound::Long(&mut limits.run_work)),
    ("iterations", |limits| Bound::Long(&mut limits.iterations)),
    ("file", |limits| Bound::Long(&mut limits.file.max_file_bytes)),
    ("external", |limits| Bound::Long(&mut limits.file.max_external_bytes)),
    ("elements", |limits| Bound::Long(&mut limits.file.max_tensor_elements)),
    ("folded", |limits| Bound::Long(&mut limits.file.max_folded_elements)),
    ("folded-work", |limits| Bound::Long(&mut limits.file.max_folded_work)),
    ("nodes", |limits| Bound::Count(&mut limits.file.max_nodes)),
    ("inputs", |limits| Bound::Count(&mut limits.file.max_operands)),
    ("depth", |limits| Bound::Count(&mut limits.file.max_depth)),
];

/// Accesses the field of a bound.
type Field = fn(&mut Limits) -> Bound<'_>;

/// A field of [`Limits`].
enum Bound<'a> {
    Long(&'a mut u64),
    Count(&'a mut usize),
}

/// A bound as the command line gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    index: usize,
    value: u64,
}

/// Parses `NAME=VALUE`.
pub fn parse_limit(text: &str) -> Result<Limit, String> {
    let known = || NAMES.map(|(name, _)| name).join(", ");
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let index = NAMES.iter().position(|(known, _)| *known == name);
    let index = index.ok_or_else(|| format!("there is no limit '{name}', only {}", known()))?;
    let value = value.parse().map_err(|_| format!("'{value}' is not a whole number"))?;
    Ok(Limit { index, value })
}

/// The library's limits with the given changes.
pub fn limits(given: &[Limit]) -> Limits {
    let mut limits = Limits::default();
    for &Limit { index, value } in given {
        let Some((_, field)) = NAMES.get(index) else { continue };
        match field(&mut limits) {
            Bound::Long(bound) => *bound = value,
            Bound::Count(bound) => *bound = usize::try_from(value).unwrap_or(usize::MAX),
        }
    }
    limits
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

//! Limits on the resources that a model may use.
//!
//! A few hundred bytes of model can demand any amount of memory and time. Every size that a file controls is checked
//! against these limits before it is allocated or computed. The defaults suit a phone, and are far above what real
//! models for phones need; an app that knows its models can lower them without loss.
//!
//! One table gives every limit its name, which the command (`--limit`), Kotlin and Swift (`Config.limits`) and the
//! errors use; a test compares it with the documentation of each.

use crate::error::{Error, Fault, InputFault, ModelFault, Result};

/// Upper bounds on a model, part of [`Options`](crate::Options).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a session's tensors: arena with scratch, inputs, state, and copies of outputs. 1 GiB.
    pub memory_bytes: u64,
    /// Work of one run: multiply-adds, and elements read and written. 2^38, about 20 seconds on one core of a phone.
    pub run_work: u64,
    /// Iterations of all loops in one run; nested loops count every time. 2^20.
    pub iterations: u64,
    /// Limits on an ONNX file.
    #[cfg(feature = "onnx")]
    pub file: skipstone_onnx::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            run_work: 1 << 38,
            iterations: 1 << 20,
            #[cfg(feature = "onnx")]
            file: skipstone_onnx::Limits::default(),
        }
    }
}

/// A limit that has a name.
#[cfg(feature = "onnx")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its name, such as `memory`.
    pub name: &'static str,
    /// What it counts, such as `bytes`.
    pub unit: &'static str,
    /// What it bounds.
    pub of: &'static str,
    /// Its value in [`Limits::default`].
    pub default: u64,
}

/// Declares the limits that have names, one row each: those of every library, and those of ONNX files. A library that
/// opens no ONNX files takes the latter too, which bound nothing there, so that an app need not know how it was built.
macro_rules! limits {
    (
        all { $($name:literal, $unit:literal, $of:literal => $field:ident;)* }
        onnx { $($file_name:literal, $file_unit:literal, $file_of:literal => $file_field:ident;)* }
    ) => {
        impl Limits {
            /// Changes the limit called `name`.
            ///
            /// # Errors
            /// `input.limit` for a name that no limit has; the message lists the names.
            pub fn set(&mut self, name: &str, value: u64) -> Result<()> {
                match name {
                    $($name => self.$field = value,)*
                    $($file_name => {
                        #[cfg(feature = "onnx")]
                        Size::set(&mut self.file.$file_field, value);
                    })*
                    _ => {
                        let known = concat!($(" ", $name,)* $(" ", $file_name,)*);
                        let message = format!("there is no limit '{name}', only:{known}");
                        return Err(Error::Invalid { fault: Fault::Input(InputFault::Limit), message });
                    }
                }
                Ok(())
            }

            /// The limits that have names.
            #[cfg(feature = "onnx")]
            #[must_use]
            pub fn table() -> Vec<Limit> {
                let held = Self::default();
                vec![
                    $(Limit { name: $name, unit: $unit, of: $of, default: held.$field },)*
                    $(Limit {
                        name: $file_name, unit: $file_unit, of: $file_of, default: Size::get(held.file.$file_field)
                    },)*
                ]
            }
        }
    };
}

limits! {
    all {
        "memory", "bytes", "a session: arena with scratch, inputs, state, copies of outputs" => memory_bytes;
        "work", "steps", "a run: multiply-adds, and elements read and written" => run_work;
        "iterations", "iterations", "all loops of a run" => iterations;
    }
    onnx {
        "file", "bytes", "the file" => max_file_bytes;
        "external", "bytes", "external data, once per tensor" => max_external_bytes;
        "nodes", "nodes", "the model, with its functions expanded" => max_nodes;
        "items", "items", "messages and strings of the file" => max_items;
        "depth", "levels", "nested messages" => max_depth;
        "inputs", "inputs", "a node" => max_operands;
        "attributes", "attributes", "a node" => max_attributes;
        "name", "bytes", "a name" => max_name_bytes;
        "string", "bytes", "a string attribute, or an entry of the metadata" => max_string_bytes;
        "rank", "dimensions", "a tensor" => max_rank;
        "elements", "elements", "a tensor" => max_tensor_elements;
        "folded", "elements", "everything computed from constants while loading" => max_folded_elements;
        "folded-work", "steps", "everything computed from constants while loading" => max_folded_work;
    }
}

/// The types of limits.
#[cfg(feature = "onnx")]
trait Size: Copy {
    fn get(self) -> u64;

    /// Sets it to `value`, or to the largest value that the type has.
    fn set(&mut self, value: u64);
}

#[cfg(feature = "onnx")]
impl Size for u64 {
    fn get(self) -> u64 {
        self
    }

    fn set(&mut self, value: u64) {
        *self = value;
    }
}

#[cfg(feature = "onnx")]
impl Size for usize {
    fn get(self) -> u64 {
        self as u64
    }

    fn set(&mut self, value: u64) {
        *self = Self::try_from(value).unwrap_or(Self::MAX);
    }
}

/// The rest of a run's limits, checked at run time for loops without a known end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// Steps of work.
    pub work: u64,
    iterations: u64,
    /// Bytes that a model without a plan may hold at a time.
    pub memory: u64,
}

impl Allowance {
    /// The allowance for one run.
    pub fn new(limits: &Limits) -> Self {
        Self { work: limits.run_work, iterations: limits.iterations, memory: limits.memory_bytes }
    }

    /// Subtracts the work of a step.
    ///
    /// # Errors
    /// `model.limit` if none is left.
    pub fn work(&mut self, of_step: u64) -> Result<()> {
        self.work = self.work.checked_sub(of_step).ok_or_else(|| spent("steps of work", "work"))?;
        Ok(())
    }

    /// Subtracts one iteration.
    ///
    /// # Errors
    /// `model.limit` if none is left.
    pub fn iteration(&mut self) -> Result<()> {
        self.iterations = self.iterations.checked_sub(1).ok_or_else(|| spent("iterations of loops", "iterations"))?;
        Ok(())
    }
}

fn spent(what: &str, name: &str) -> Error {
    exceeded(format!("the run needs more {what} than the limit '{name}' allows"))
}

/// Refuses a model that needs more than `most` of `what`, which the limit called `name` bounds.
pub(crate) fn check(what: &str, asked: u64, most: u64, name: &str) -> Result<()> {
    if asked <= most {
        return Ok(());
    }
    Err(exceeded(format!("the model needs {asked} {what}, the limit '{name}' is {most}")))
}

/// Refuses a model that needs more than `most` of `what`, which nobody can change.
pub(crate) fn check_fixed(what: &str, asked: u64, most: u64) -> Result<()> {
    if asked <= most {
        return Ok(());
    }
    Err(exceeded(format!("the model needs {asked} {what}, at most {most} are allowed")))
}

fn exceeded(message: String) -> Error {
    Error::Invalid { fault: Fault::Model(ModelFault::Limit), message }
}

#[cfg(all(test, feature = "onnx"))]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn limits_are_set_by_name() {
        let mut limits = Limits::default();
        for (at, limit) in Limits::table().iter().enumerate() {
            limits.set(limit.name, at as u64).unwrap();
        }
        assert_eq!((limits.memory_bytes, limits.run_work, limits.iterations), (0, 1, 2));
        let file = &limits.file;
        assert_eq!((file.max_file_bytes, file.max_nodes, file.max_folded_work), (3, 5, 15));
        limits.set("nodes", u64::MAX).unwrap();
        assert_eq!(limits.file.max_nodes, usize::MAX);
        for name in ["", "Memory", "frobs", "max_nodes"] {
            let error = limits.set(name, 1).unwrap_err();
            assert_eq!(error.code(), "input.limit");
            assert!(error.to_string().contains("memory"), "{error}");
        }
    }

    /// A number as people write it: powers of two as such.
    fn shown(number: u64) -> String {
        if number.is_power_of_two() && number >= 1 << 10 {
            return format!("2^{}", number.trailing_zeros());
        }
        let digits = number.to_string();
        let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|it| str::from_utf8(it).ok()).collect();
        groups.join(",")
    }

    #[test]
    fn the_documentation_shows_the_table() {
        let row = |it: &Limit| format!("| `{}` | {} | {} | {} |", it.name, it.unit, it.of, shown(it.default));
        let table: Vec<String> = Limits::table().iter().map(row).collect();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let kotlin = "android/skipstone/src/main/kotlin/dev/skipstone/Config.kt";
        for file in ["SECURITY.md", kotlin, "ios/Sources/Skipstone/Config.swift"] {
            let text = fs::read_to_string(root.join(file)).unwrap();
            let lines = text.lines().map(|line| line.trim_start_matches([' ', '/', '*']));
            let begins = |line: &&str| line.starts_with(&format!("| `{}` |", Limits::table()[0].name));
            let found: Vec<&str> = lines.skip_while(|line| !begins(line)).take(table.len()).collect();
            assert_eq!(found, table, "{file} should show:\n{}", table.join("\n"));
        }
    }
}

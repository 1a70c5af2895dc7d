//! Reads class names from the files that people have: lines, JSON, CSV and YAML, also in UTF-16.
//!
//! The library and packages know only lines, one for each class; everything else is brought into that form here. A name
//! with an index goes where the index says, and a file that leaves an index out or names one twice is refused: a wrong
//! name looks like a wrong model.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::failure::Failure;
use crate::files;

/// The names in the file at `path`, one per line.
///
/// # Errors
/// `io`, `text`, and `labels` for a file whose names and indices do not make a list.
pub fn read(path: &Path) -> Result<String, Failure> {
    let text = text(path)?;
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        return Err(Failure::new("labels", format!("{}: no names in it", path.display())));
    }
    let ending = path.extension().map(|ending| ending.to_ascii_lowercase()).unwrap_or_default();
    lines(&text, &ending.to_string_lossy())
        .map_err(|reason| Failure::new("labels", format!("{}: {reason}", path.display())))
}

/// The text of a file in UTF-8, or in UTF-16 if its byte-order mark says so, as Windows writes what a shell prints.
fn text(path: &Path) -> Result<String, Failure> {
    let bytes = files::read(path)?;
    let unit: fn([u8; 2]) -> u16 = match bytes.get(..2) {
        Some([0xFF, 0xFE]) => u16::from_le_bytes,
        Some([0xFE, 0xFF]) => u16::from_be_bytes,
        _ => return String::from_utf8(bytes).map_err(|_| not_text(path, "UTF-8")),
    };
    let (pairs, rest) = bytes[2..].as_chunks::<2>();
    let units: Vec<u16> = pairs.iter().map(|&pair| unit(pair)).collect();
    String::from_utf16(&units).ok().filter(|_| rest.is_empty()).ok_or_else(|| not_text(path, "UTF-16"))
}

fn not_text(path: &Path, encoding: &str) -> Failure {
    Failure::new("text", format!("{}: not {encoding} text", path.display()))
}

fn lines(text: &str, ending: &str) -> Result<String, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if ending == "json" || text.trim_start().starts_with(['[', '{']) {
        match serde_json::from_str(text) {
            Ok(value) => return Ok(one_per_line(&of_json(&value)?)),
            Err(error) if ending == "json" => return Err(format!("not JSON: {error}")),
            // A name may begin with a bracket.
            Err(_) => {}
        }
    }
    if ["yaml", "yml"].contains(&ending) {
        return Ok(one_per_line(&of_yaml(text)?));
    }
    let rows = Rows::new(text);
    if ["csv", "tsv"].contains(&ending) {
        return Ok(one_per_line(&rows.names()?));
    }
    // Lines such as `0,cat`, of which the order does not matter, are recognized in any file.
    match rows.numbered().or_else(|| counted(text)) {
        Some(names) if names.len() > 1 => Ok(one_per_line(&names)),
        _ => Ok(text.to_owned()),
    }
}

/// The names of lines such as `0 cat` or `0: cat`, as Teachable Machine writes them: only those that count up from 0.
fn counted(text: &str) -> Option<Vec<String>> {
    let numbered = |(index, line): (usize, &str)| {
        let (number, name) = line.split_once([' ', ':'])?;
        let name = name.trim_start_matches(':').trim();
        (number.parse() == Ok(index) && !name.is_empty()).then(|| name.to_owned())
    };
    text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).enumerate().map(numbered).collect()
}

/// The names of a data set's description, as Ultralytics writes it: below `names:`, a list or one line for each index.
fn of_yaml(text: &str) -> Result<Vec<String>, String> {
    let plain = |name: &str| name.trim().trim_matches(['"', '\'']).to_owned();
    let mut lines = text.lines().map(|line| line.split(" #").next().unwrap_or_default());
    let same_line = lines.by_ref().find_map(|line| line.strip_prefix("names:"));
    let Some(same_line) = same_line.map(str::trim) else { return Err("expected class names below 'names:'".into()) };
    if let Some(list) = same_line.strip_prefix('[').and_then(|list| list.strip_suffix(']')) {
        return Ok(list.split(',').map(plain).collect());
    }
    if !same_line.is_empty() {
        return Err(format!("expected class names below 'names:', not '{same_line}'"));
    }
    let below = lines.map(str::trim_end).take_while(|line| line.is_empty() || line.starts_with([' ', '-']));
    let entries = below.map(str::trim).filter(|line| !line.is_empty()).enumerate();
    let pairs = entries.map(|(at, line)| match (line.strip_prefix("- "), line.split_once(':')) {
        (Some(name), _) => Ok((at, plain(name))),
        (None, Some((index, name))) => match index.trim().parse() {
            Ok(index) => Ok((index, plain(name))),
            Err(_) => Err(format!("'{line}' does not begin with the index of a class")),
        },
        (None, None) => Err(format!("'{line}' is neither '- name' nor 'index: name'")),
    });
    in_order(pairs.collect::<Result<_, _>>()?)
}

/// Names as lines: none has a line end inside.
fn one_per_line(names: &[String]) -> String {
    names.iter().map(|name| name.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

/// What holds the names among other things: in a Hugging Face configuration, and in descriptions of models.
const HOLDERS: [&str; 6] = ["id2label", "labels", "names", "classes", "class_names", "categories"];

/// Names of a JSON list, of an object from index to name, or from name to index (Keras's `class_indices`), or of one of
/// the holders.
fn of_json(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Array(list) if list.iter().all(|it| it.get("id").is_some()) => {
            let index = |it: &Value| it["id"].as_u64().and_then(|index| usize::try_from(index).ok());
            let pair = |it| Ok((index(it).ok_or_else(|| format!("{it} has no index as its id"))?, name_in(it)?));
            in_order(list.iter().map(pair).collect::<Result<_, String>>()?)
        }
        Value::Array(list) => list.iter().map(name_in).collect(),
        Value::Object(object) => {
            let held = HOLDERS.iter().filter_map(|&key| object.get(key));
            if let Some(labels) = held.into_iter().find(|held| held.is_array() || held.is_object()) {
                return of_json(labels);
            }
            let index = |value: &Value| value.as_u64().and_then(|index| usize::try_from(index).ok());
            let pairs = object.iter().map(|(key, value)| match (index(value), key.trim().parse()) {
                (Some(index), _) => Ok((index, key.clone())),
                (None, Ok(index)) => Ok((index, name_in(value)?)),
                (None, Err(_)) => Err(format!("neither '{key}' nor its value is the index of a class")),
            });
            in_order(pairs.collect::<Result<_, _>>()?)
        }
        _ => Err("expected a JSON list or object of class names".into()),
    }
}

/// A name by itself, or the last of a list, as in Keras's `["n02123045", "tabby"]`, or that of an object.
fn name_in(value: &Value) -> Result<String, String> {
    match value {
        Value::String(name) => Ok(name.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Array(list) if list.last().is_some_and(Value::is_string) => name_in(&list[list.len() - 1]),
        Value::Object(object) if object.get("name").is_some_and(Value::is_string) => name_in(&object["name"]),
        other => Err(format!("'{other}' is not the name of a class")),
    }
}

/// The names in the order of their indices, which are 0, 1, 2 and so on.
fn in_order(pairs: Vec<(usize, String)>) -> Result<Vec<String>, String> {
    let count = pairs.len();
    let mut names = BTreeMap::new();
    for (index, name) in pairs {
        if let Some(other) = names.insert(index, name.clone()) {
            return Err(format!("'{other}' and '{name}' both have the index {index}"));
        }
    }
    match (0..count).find(|index| !names.contains_key(index)) {
        Some(missing) => Err(format!("of {count} names, none has the index {missing}")),
        None => Ok(names.into_values().collect()),
    }
}

/// A table of text.
struct Rows(Vec<Vec<String>>);

/// Titles of columns with names, in lower case.
const NAMES: [&str; 8] = ["name", "label", "class", "class_name", "classname", "label_name", "category", "title"];
/// Titles of columns with indices.
const INDICES: [&str; 10] =
    ["index", "id", "idx", "class_index", "class_id", "classid", "label_id", "label_index", "number", ""];

impl Rows {
    /// Cells are separated by commas, semicolons or tabs, whichever comes first, and may be quoted (RFC 4180).
    fn new(text: &str) -> Self {
        let mut separator = None;
        let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
        let mut quoted = false;
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '"' if quoted && rest.peek() == Some(&'"') => cell.extend(rest.next()),
                '"' if quoted || cell.trim().is_empty() => quoted = !quoted,
                ',' | ';' | '\t' if !quoted && *separator.get_or_insert(c) == c => row.push(std::mem::take(&mut cell)),
                '\r' | '\n' if !quoted => {
                    row.push(std::mem::take(&mut cell));
                    rows.push(std::mem::take(&mut row));
                }
                c => cell.push(c),
            }
        }
        row.push(cell);
        rows.push(row);
        let trimmed = |row: Vec<String>| row.iter().map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        Self(rows.into_iter().map(trimmed).filter(|row| row.iter().any(|cell| !cell.is_empty())).collect())
    }

    /// The names of rows of index and name, in any order without gaps; `None` if not all are.
    fn numbered(&self) -> Option<Vec<String>> {
        let pair = |row: &Vec<String>| Some((row.first()?.parse().ok()?, row.get(1..)?.join(", ")));
        in_order(self.0.iter().map(pair).collect::<Option<_>>()?)
            .ok()
            .filter(|names| names.iter().all(|it| !it.is_empty()))
    }

    /// The names of a table of names, or of indices and names, with or without titles.
    fn names(&self) -> Result<Vec<String>, String> {
        let title = self.0.first().map_or(&[][..], Vec::as_slice);
        let find = |titles: &[&str]| title.iter().position(|it| titles.contains(&it.to_lowercase().as_str()));
        let is_index = |cell: &String| cell.parse::<usize>().is_ok();
        let (name, index, skip) = match (find(&NAMES), find(&INDICES), title) {
            (Some(name), index, _) => (name, index, 1),
            (None, _, [_]) => (0, None, 0),
            (None, _, [first, _]) if is_index(first) => (1, Some(0), 0),
            (None, _, [_, second]) if is_index(second) => (0, Some(1), 0),
            (None, _, [_, _]) => return Err("neither column is the index of a class; expected index,name".into()),
            (None, _, columns) => {
                return Err(format!("{} columns, of which none is titled 'name'; expected index,name", columns.len()));
            }
        };
        let mut pairs = Vec::new();
        for row in &self.0[skip..] {
            let cell = |at: usize| row.get(at).ok_or_else(|| format!("a row has too few cells: {}", row.join(",")));
            let index = index.map(|at| {
                let cell = cell(at)?;
                cell.parse().map_err(|_| format!("'{cell}' is not the index of a class"))
            });
            pairs.push((index.unwrap_or(Ok(pairs.len()))?, cell(name)?.clone()));
        }
        in_order(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of a file with this ending, separated by `|`.
    fn names(ending: &str, text: &str) -> Result<String, String> {
        lines(text, ending).map(|lines| lines.lines().collect::<Vec<_>>().join("|"))
    }

    fn good(ending: &str, text: &str, want: &str) {
        assert_eq!(names(ending, text).as_deref(), Ok(want), "{text}");
    }

    fn bad(ending: &str, text: &str, reason: &str) {
        let error = names(ending, text).expect_err(text);
        assert!(error.contains(reason), "{text}: {error}");
    }

    #[test]
    fn lines_stay_lines() {
        good("txt", "cat\ndog\n", "cat|dog");
        good(
            "txt",
            "tench, Tinca tinca\ngoldfish, Carassius auratus\n",
            "tench, Tinca tinca|goldfish, Carassius auratus",
        );
        good("txt", "[unknown]\ncat\n", "[unknown]|cat");
        good("txt", "0\n1\n2\n", "0|1|2");
        // Indices with a gap may as well be a part of the names.
        good("txt", "0,cat\n2,dog\n", "0,cat|2,dog");
    }

    #[test]
    fn json_of_any_form_is_read() {
        good("json", r#"["cat", "dog", "a\nbird"]"#, "cat|dog|a bird");
        good("txt", "\u{feff} [\"cat\", \"dog\"]", "cat|dog");
        good(
            "json",
            r#"{"1": "dog", "0": "cat", "10": "k", "2": "c", "3": "d", "4": "e", "5": "f", "6": "g", "7": "h",
            "8": "i", "9": "j"}"#,
            "cat|dog|c|d|e|f|g|h|i|j|k",
        );
        good("json", r#"{"cat": 0, "dog": 1, "bird": 2}"#, "cat|dog|bird");
        // Folders named by digits, in the order of their names.
        good("json", r#"{"1": 0, "10": 1, "2": 2}"#, "1|10|2");
        good("json", r#"{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}"#, "tench|goldfish");
        good("json", r#"{"model_type": "vit", "id2label": {"0": "cat", "1": "dog"}}"#, "cat|dog");
    }

    #[test]
    fn csv_of_any_form_is_read() {
        good("csv", "0,cat\n1,dog\n", "cat|dog");
        good("csv", "1,dog\r\n0,cat\r\n", "cat|dog");
        good("csv", "index,name\n0,cat\n1,dog\n", "cat|dog");
        good("csv", "Name;ID\ncat;0\ndog;1\n", "cat|dog");
        good("csv", "cat,0\ndog,1\n", "cat|dog");
        good("csv", "\u{feff}id,synset,label\n1,n2,\"dog, small\"\n0,n1,\"a \"\"cat\"\"\"\n", "a \"cat\"|dog, small");
        good("csv", "name\ncat\ndog\n", "cat|dog");
        good("csv", "cat\ndog\n", "cat|dog");
        // As pandas writes a series.
        good("csv", ",label\n0,cat\n1,dog\n", "cat|dog");
        good("tsv", "0\tcat, small\n1\tdog\n", "cat, small|dog");
        good("txt", "0,cat\n1,dog\n", "cat|dog");
        good("txt", "1;dog\r0;cat\r", "cat|dog");
    }

    #[test]
    fn names_are_found_among_other_things() {
        good("json", r#"{"modelName": "tm", "labels": ["cat", "dog"]}"#, "cat|dog");
        good("json", r#"{"classes": {"0": "cat", "1": "dog"}}"#, "cat|dog");
        good("json", r#"{"categories": [{"id": 1, "name": "dog"}, {"id": 0, "name": "cat"}]}"#, "cat|dog");
        good("json", r#"[{"name": "cat"}, {"name": "dog"}]"#, "cat|dog");
        good("json", r#"{"0": {"name": "cat"}, "1": {"name": "dog"}}"#, "cat|dog");
        // A class of that name.
        good("json", r#"{"labels": 0, "names": 1}"#, "labels|names");
        bad("json", r#"[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]"#, "none has the index 0");
        bad("json", r#"[{"id": "a", "name": "cat"}]"#, "no index");
    }

    #[test]
    fn lines_that_count_lose_their_numbers() {
        good("txt", "0 cat\n1 dog, small\n2 a bird\n\n", "cat|dog, small|a bird");
        good("txt", "0: cat\r\n1: dog\r\n", "cat|dog");
        good("txt", "1 cat\n2 dog\n", "1 cat|2 dog");
        good("txt", "0 cat\ndog\n", "0 cat|dog");
        good("txt", "0 cat\n", "0 cat");
    }

    #[test]
    fn yaml_of_a_data_set_is_read() {
        good("yaml", "path: data\nnames:\n  0: cat\n  1: 'dog'  # small\nnc: 2\n", "cat|dog");
        good("yml", "names:\n- cat\n- dog\n", "cat|dog");
        good("yaml", "nc: 2\nnames: ['cat', \"dog\"]\n", "cat|dog");
        bad("yaml", "names:\n  0: cat\n  2: dog\n", "none has the index 1");
        bad("yaml", "cat\ndog\n", "expected class names below");
        bad("yaml", "names: cat\n", "not 'cat'");
        bad("yaml", "names:\n  cat\n", "neither");
    }

    #[test]
    fn text_of_windows_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.txt");
        let read_bytes = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&path).map_err(|failure| failure.to_string())
        };
        let units = |text: &str| text.encode_utf16().collect::<Vec<_>>();
        let little: Vec<u8> = units("\u{feff}cat\r\nübung\r\n").iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = units("\u{feff}cat\r\nübung\r\n").iter().flat_map(|unit| unit.to_be_bytes()).collect();
        for bytes in [&little, &big] {
            assert_eq!(read_bytes(bytes).unwrap().lines().collect::<Vec<_>>(), ["cat", "übung"]);
        }
        assert!(read_bytes(&little[..little.len() - 1]).unwrap_err().contains("not UTF-16"));
        assert!(read_bytes(b"caf\xE9\n").unwrap_err().contains("not UTF-8"));
        assert!(read_bytes(b"\xEF\xBB\xBF \r\n").unwrap_err().contains("no names"));
    }

    #[test]
    fn files_that_leave_a_class_out_are_refused() {
        bad("json", r#"["cat", "#, "not JSON");
        bad("json", r#"["cat", {"a": 1}]"#, "not the name");
        bad("json", r#"{"cat": 0, "dog": 2}"#, "none has the index 1");
        bad("json", r#"{"1": "cat", "2": "dog"}"#, "none has the index 0");
        bad("json", r#"{"cat": 0, "dog": 0}"#, "both have the index 0");
        bad("json", r#"{"cat": "dog"}"#, "neither 'cat' nor its value");
        bad("json", "7", "expected a JSON list");
        bad("csv", "0,cat\n2,dog\n", "none has the index 1");
        bad("csv", "0,cat\n0,dog\n", "both have the index 0");
        bad("csv", "index,name\n0,cat\n1\n", "too few cells");
        bad("csv", "index,name\n0,cat\nx,dog\n", "'x' is not the index");
        bad("csv", "cat,small\ndog,large\n", "neither column");
        bad("csv", "0,n1,cat\n1,n2,dog\n", "3 columns");
    }
}

//! From text to the numbers that a model was trained on, as its `tokenizer.json` says.
//!
//! Hugging Face's own library reads the file, so that every kind of tokenizer gives what it gives in Python. What the
//! file leaves open, the padding token and the longest text, is often in `tokenizer_config.json` beside it.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::{PaddingDirection, PaddingParams, PaddingStrategy, Tokenizer, TruncationParams};

use crate::failure::{Failure, catch_panics};
use crate::files;

/// Most tokens that a `model_max_length` is believed: transformers writes 10^30 where there is no limit.
const MOST: u64 = 1 << 20;
/// Most bytes of a file: the vocabularies of all languages take 30 MiB.
const MAX_FILE: u64 = 64 << 20;
/// Most bytes of the padding of a text. A token takes its text and about a hundred more.
const MAX_PADDING: usize = 64 << 20;
/// Padding tokens of the common families, for files that name none.
const PADDING: [&str; 4] = ["[PAD]", "<pad>", "<|pad|>", "<PAD>"];

/// A text as tokens, padded if the model takes a fixed number. The lists have the same length.
pub struct Tokens {
    /// Indices into the vocabulary.
    pub ids: Vec<u32>,
    /// 1 for a token, 0 for padding.
    pub mask: Vec<u32>,
    /// The sequence that a token belongs to: 0 for a single text, in most models.
    pub types: Vec<u32>,
    /// Whether the text was longer, and its end is missing.
    pub is_cut: bool,
}

impl Tokens {
    /// For every token the number of tokens before it, without padding.
    pub fn positions(&self) -> Vec<u32> {
        let before = |count: &mut u32, &mask: &u32| Some(std::mem::replace(count, *count + mask));
        self.mask.iter().scan(0, before).collect()
    }
}

/// A tokenizer for a model that takes so many tokens.
pub struct Encoder {
    tokenizer: Tokenizer,
    path: PathBuf,
    /// The number of tokens that every text is cut or padded to.
    fixed: Option<usize>,
}

impl Encoder {
    /// Reads a `tokenizer.json`, for texts of exactly `fixed` tokens, or otherwise of as many as they have, up to the
    /// tokenizer's limit.
    ///
    /// # Errors
    /// `io`; `tokenizer` for a file that is no tokenizer, has no padding token where one is needed, pads a text without
    /// measure, or adds more tokens to it than the model takes.
    pub fn open(path: &Path, fixed: Option<usize>) -> Result<Self, Failure> {
        let refused = |reason: &str| Failure::new("tokenizer", format!("{}: {reason}", path.display()));
        let bytes = files::read_up_to(path, MAX_FILE)?;
        let mut tokenizer = catch_panics(|| Tokenizer::from_bytes(&bytes))?
            .map_err(|error| refused(&format!("not a tokenizer.json: {error}")))?;
        let config = Config::beside(path)?;

        let stored = tokenizer.get_truncation().cloned();
        let stored_limit = stored.as_ref().map(|it| it.max_length);
        let limit = fixed.or_else(|| stored_limit.into_iter().chain(config.most()).min());
        let padding = match (tokenizer.get_padding().cloned(), fixed) {
            (padding, None) => padding,
            (Some(padding), Some(length)) => Some(of_length(padding, length)),
            (None, Some(length)) => {
                let padding = config.padding(&tokenizer).ok_or_else(|| {
                    refused(&format!(
                        "it has no padding token, and the model takes exactly {length} tokens; name one as pad_token \
                         in tokenizer_config.json"
                    ))
                })?;
                Some(of_length(padding, length))
            }
        };
        if padding.as_ref().is_some_and(|padding| padded_bytes(padding) > MAX_PADDING) {
            return Err(refused("it pads a text to more tokens than memory should hold"));
        }
        let special = tokenizer.get_post_processor().map_or(0, |it| tokenizers::PostProcessor::added_tokens(it, false));
        if let Some(limit) = limit.filter(|&limit| limit < special.max(1)) {
            return Err(refused(&format!("it adds {special} tokens to a text, but the model takes only {limit}")));
        }
        let truncation =
            limit.map(|max_length| TruncationParams { max_length, stride: 0, ..stored.unwrap_or_default() });
        tokenizer.with_truncation(truncation).map_err(|error| refused(&error.to_string()))?;
        tokenizer.with_padding(padding);
        Ok(Self { tokenizer, path: path.to_owned(), fixed })
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// `tokenizer` for a text without tokens, or that the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<Tokens, Failure> {
        let refused = |reason: String| Failure::new("tokenizer", reason);
        let encoding = catch_panics(|| self.tokenizer.encode(text, true))?;
        let encoding = encoding.map_err(|error| refused(format!("the tokenizer refuses the text: {error}")))?;
        let mask = encoding.get_attention_mask().to_vec();
        if !mask.contains(&1) {
            return Err(refused("the text has no tokens".into()));
        }
        Ok(Tokens {
            ids: encoding.get_ids().to_vec(),
            mask,
            types: encoding.get_type_ids().to_vec(),
            is_cut: !encoding.get_overflowing().is_empty(),
        })
    }
}

impl std::fmt::Display for Encoder {
    /// Such as `models/tokenizer.json, exactly 128 tokens`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        match (self.fixed, self.tokenizer.get_truncation()) {
            (Some(fixed), _) => write!(f, ", exactly {fixed} tokens"),
            (None, Some(limit)) => write!(f, ", at most {} tokens", limit.max_length),
            (None, None) => f.write_str(", any number of tokens"),
        }
    }
}

/// The padding to `length` tokens.
fn of_length(padding: PaddingParams, length: usize) -> PaddingParams {
    PaddingParams { strategy: PaddingStrategy::Fixed(length), pad_to_multiple_of: None, ..padding }
}

/// The most bytes that the padding of a short text takes.
fn padded_bytes(padding: &PaddingParams) -> usize {
    let fixed = match padding.strategy {
        PaddingStrategy::Fixed(length) => length,
        PaddingStrategy::BatchLongest => 1,
    };
    let tokens = fixed.saturating_add(padding.pad_to_multiple_of.unwrap_or(0));
    tokens.saturating_mul(padding.pad_token.len().saturating_add(100))
}

/// The `tokenizer_config.json` beside a tokenizer; null if there is none.
struct Config(Value);

impl Config {
    fn beside(tokenizer: &Path) -> Result<Self, Failure> {
        let path = tokenizer.with_file_name("tokenizer_config.json");
        if files::is_stream(tokenizer) || !path.exists() {
            return Ok(Self(Value::Null));
        }
        let bytes = files::read_up_to(&path, MAX_FILE)?;
        let text = String::from_utf8_lossy(&bytes);
        let parsed = serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(&text));
        parsed.map(Self).map_err(|error| Failure::new("tokenizer", format!("{}: not JSON: {error}", path.display())))
    }

    /// The most tokens that the model was trained on.
    fn most(&self) -> Option<usize> {
        let most = self.0.get("model_max_length")?.as_u64()?;
        usize::try_from(most).ok().filter(|_| (1..=MOST).contains(&most))
    }

    /// Padding with the token named here, or otherwise with one that has a usual name.
    fn padding(&self, tokenizer: &Tokenizer) -> Option<PaddingParams> {
        let named = self.0.get("pad_token").and_then(|token| token.get("content").unwrap_or(token).as_str());
        let known = |token: &&str| tokenizer.token_to_id(token).is_some();
        let pad_token = named.filter(known).or_else(|| PADDING.into_iter().find(known))?.to_owned();
        let direction = match self.0.get("padding_side").and_then(Value::as_str) {
            Some("left") => PaddingDirection::Left,
            _ => PaddingDirection::Right,
        };
        let pad_id = tokenizer.token_to_id(&pad_token)?;
        Some(PaddingParams { direction, pad_id, pad_token, ..PaddingParams::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(mask: &[u32]) -> Vec<u32> {
        let zeros = vec![0; mask.len()];
        Tokens { ids: zeros.clone(), mask: mask.to_vec(), types: zeros, is_cut: false }.positions()
    }

    #[test]
    fn positions_count_tokens_but_not_padding() {
        assert_eq!(positions(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(positions(&[1, 1, 0, 0]), [0, 1, 2, 2]);
        assert_eq!(positions(&[0, 0, 1, 1]), [0, 0, 0, 1]);
    }

    /// A file of a few bytes, with its own padding.
    fn padding(padding: &str) -> Result<Encoder, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let model = r#"{"type": "WordLevel", "vocab": {"a": 0, "[PAD]": 1}, "unk_token": "a"}"#;
        std::fs::write(&path, format!(r#"{{"version": "1.0", "model": {model}, "padding": {padding}}}"#)).unwrap();
        Encoder::open(&path, None)
    }

    #[test]
    fn a_file_cannot_ask_for_any_amount_of_padding() {
        let stored = |strategy: &str, multiple: &str, token: &str| {
            let ids = r#""pad_id": 1, "pad_type_id": 0"#;
            let of = format!(r#""strategy": {strategy}, "pad_to_multiple_of": {multiple}, "pad_token": "{token}""#);
            padding(&format!(r#"{{{of}, {ids}, "direction": "Right"}}"#))
        };
        let usual = stored(r#"{"Fixed": 8}"#, "null", "[PAD]").unwrap();
        assert_eq!(usual.encode("a").unwrap().mask, [1, 0, 0, 0, 0, 0, 0, 0]);
        for (strategy, multiple, token) in [
            (r#"{"Fixed": 1000000000000}"#, "null", "[PAD]"),
            (r#""BatchLongest""#, "1000000000000", "[PAD]"),
            (r#"{"Fixed": 100000}"#, "8", &"a".repeat(10_000)),
        ] {
            let error = stored(strategy, multiple, token).err().unwrap().to_string();
            assert!(error.contains("pads a text"), "{error}");
        }
    }

    #[test]
    fn a_limit_of_ten_to_the_thirty_is_none() {
        let most = |text: &str| Config(serde_json::from_str(text).unwrap()).most();
        assert_eq!(most(r#"{"model_max_length": 512}"#), Some(512));
        assert_eq!(most(r#"{"model_max_length": 1000000000000000019884624838656}"#), None);
        assert_eq!(most(r#"{"model_max_length": 0}"#), None);
        assert_eq!(most("{}"), None);
    }
}

//! Models that take text: which inputs hold its tokens, and how long a text may be.
//!
//! Exporters name these inputs as transformers does, `input_ids` and so on, or as BERT's first code did. Their length is
//! often open, so that it is known only with the text; the inputs are therefore read before the model is planned.

use std::path::Path;

use skipstone::onnx::{Dimension, ElementType, ValueType, validate};
use skipstone::{DType, Error, Fact, Model, OpError, Options, Shapes, Tensor};

use crate::failure::Failure;
use crate::files;
use crate::tokens::Tokens;

/// What an input holds for every token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Ids,
    Mask,
    Types,
    Positions,
}

impl Role {
    fn of(name: &str) -> Option<Self> {
        // TensorFlow's names end in the index of an output.
        match name.strip_suffix(":0").unwrap_or(name) {
            "input_ids" | "input_word_ids" | "token_ids" => Some(Self::Ids),
            "attention_mask" | "input_mask" => Some(Self::Mask),
            "token_type_ids" | "segment_ids" | "input_type_ids" => Some(Self::Types),
            "position_ids" => Some(Self::Positions),
            _ => None,
        }
    }

    fn values(self, tokens: &Tokens) -> Vec<u32> {
        match self {
            Self::Ids => tokens.ids.clone(),
            Self::Mask => tokens.mask.clone(),
            Self::Types => tokens.types.clone(),
            Self::Positions => tokens.positions(),
        }
    }
}

/// An input that holds integers: a list, or a batch of lists.
#[derive(Debug)]
struct Input {
    name: String,
    /// `None` for an open dimension.
    dims: Vec<Option<usize>>,
}

/// The inputs for the tokens of a text, by name.
#[derive(Debug)]
pub struct TextModel(Vec<(Role, Input)>);

impl TextModel {
    /// The text inputs of an open model; `None` if it takes no text.
    pub fn of(model: &Model) -> Option<Self> {
        let inputs = model.inputs().iter().filter(|port| matches!(port.fact.dtype, DType::I32 | DType::I64));
        Self::new(inputs.map(|port| {
            let dims = port.fact.shape.iter().map(|&dim| Some(dim)).collect();
            Input { name: port.name.clone(), dims }
        }))
    }

    /// The text inputs of an ONNX file whose shapes are open; `None` if it takes no text.
    ///
    /// # Errors
    /// `io`, and the errors of an invalid file.
    pub fn declared(path: &Path, options: &Options) -> Result<Option<Self>, Failure> {
        let checked = validate(&files::read(path)?, &options.limits.file).map_err(Error::from)?;
        let inputs = checked.inputs.into_iter().filter(|input| !input.initialized);
        let inputs = inputs.filter_map(|input| match input.kind {
            ValueType::Tensor { element: Some(ElementType::Int32 | ElementType::Int64), shape: Some(dims) } => {
                let open = dims.iter().map(|dim| match dim {
                    Dimension::Known(dim) => usize::try_from(*dim).ok().filter(|&dim| dim > 0),
                    Dimension::Symbol(_) | Dimension::Unknown => None,
                });
                let asked = options.shapes.get(&input.name);
                let dims = asked.map_or_else(|| open.collect(), |asked| asked.iter().copied().map(Some).collect());
                Some(Input { name: input.name, dims })
            }
            _ => None,
        });
        Ok(Self::new(inputs))
    }

    /// Gives every input of integers its role. The only one of a model needs no known name.
    fn new(inputs: impl Iterator<Item = Input>) -> Option<Self> {
        let lists: Vec<Input> = inputs.filter(|input| matches!(input.dims.len(), 1 | 2)).collect();
        let only = lists.len() == 1;
        let role = |input: Input| Some((Role::of(&input.name).or(only.then_some(Role::Ids))?, input));
        let inputs: Vec<_> = lists.into_iter().filter_map(role).collect();
        inputs.iter().any(|(role, _)| *role == Role::Ids).then_some(Self(inputs))
    }

    /// The number of tokens that the model takes; `None` if it takes any.
    pub fn length(&self) -> Option<usize> {
        self.0.iter().find_map(|(_, input)| *input.dims.last()?)
    }

    /// Names of the inputs.
    pub fn names(&self) -> String {
        self.0.iter().map(|(_, input)| input.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Adds the shapes of open inputs for a text of `length` tokens.
    pub fn bind(&self, length: usize, shapes: &mut Shapes) {
        for (_, Input { name, dims }) in &self.0 {
            if dims.contains(&None) && !shapes.contains_key(name) {
                let last = dims.len() - 1;
                let dim = |(axis, dim): (usize, &Option<usize>)| dim.unwrap_or(if axis == last { length } else { 1 });
                shapes.insert(name.clone(), dims.iter().enumerate().map(dim).collect());
            }
        }
    }

    /// The model's inputs for a text, in the model's order.
    ///
    /// # Errors
    /// `model.text-input` for a model with other inputs, or for several texts at once.
    pub fn inputs(&self, model: &Model, tokens: &Tokens) -> Result<Vec<Tensor>, Failure> {
        let refused = |reason: String| Failure::new("model.text-input", reason);
        let length = tokens.ids.len();
        let tensor = |port: &skipstone::plan::Port| {
            let (name, fact) = (&port.name, &port.fact);
            let Some((role, _)) = self.0.iter().find(|(_, input)| input.name == *name) else {
                let names = self.names();
                return Err(refused(format!("input '{name}' is {fact}, but a text gives only tokens, for {names}")));
            };
            if fact.shape.elements() != length || fact.shape.last() != Some(&length) {
                let reason = format!("input '{name}' is {fact}, but a text has {length} tokens, and a batch of 1");
                return Err(refused(reason));
            }
            filled(fact, &role.values(tokens)).map_err(|error| Failure::new("internal", error.to_string()))
        };
        model.inputs().iter().map(tensor).collect()
    }
}

/// A tensor of i32 or i64 with these elements.
fn filled(fact: &Fact, values: &[u32]) -> Result<Tensor, OpError> {
    let dims = fact.shape.dims();
    match fact.dtype {
        DType::I32 => Tensor::from_slice(dims, &values.iter().map(|&it| it.cast_signed()).collect::<Vec<i32>>()),
        _ => Tensor::from_slice(dims, &values.iter().map(|&it| i64::from(it)).collect::<Vec<i64>>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(inputs: &[(&str, &[Option<usize>])]) -> Option<TextModel> {
        TextModel::new(inputs.iter().map(|&(name, dims)| Input { name: name.into(), dims: dims.to_vec() }))
    }

    #[test]
    fn inputs_are_recognized_by_name() {
        let open: &[Option<usize>] = &[None, None];
        let text = model(&[("attention_mask", open), ("input_ids:0", open), ("other", open)]).unwrap();
        assert_eq!(text.names(), "attention_mask, input_ids:0");
        assert_eq!(model(&[("x", open)]).unwrap().names(), "x");
        assert!(model(&[("x", open), ("y", open)]).is_none());
        assert!(model(&[("input_ids", &[None, None, None])]).is_none());
        assert!(model(&[]).is_none());
    }

    #[test]
    fn open_lengths_are_bound_and_others_stay() {
        let text = model(&[
            ("input_ids", &[None, None]),
            ("attention_mask", &[Some(1), None]),
            ("token_type_ids", &[None]),
            ("position_ids", &[Some(1), Some(9)]),
        ]);
        let text = text.unwrap();
        assert_eq!(text.length(), Some(9));
        let mut shapes = Shapes::from([("input_ids".into(), vec![1, 9])]);
        text.bind(9, &mut shapes);
        assert_eq!(shapes["attention_mask"], [1, 9]);
        assert_eq!(shapes["token_type_ids"], [9]);
        assert!(!shapes.contains_key("position_ids"));
    }
}

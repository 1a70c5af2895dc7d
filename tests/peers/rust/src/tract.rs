//! tract: the optimized graph, its state kept between runs, its own thread pool if there is more than one thread.

use std::path::Path;

use anyhow::{Context, Result};
use tract_onnx::prelude::{
    Framework, InferenceModelExt, IntoTValue, RunOptions, TValue, Tensor, TypedSimplePlan, TypedSimpleState,
    multithread::Executor, tvec,
};

use crate::{Engine, Input};

pub struct Tract {
    state: TypedSimpleState,
    input: TValue,
    outputs: Vec<TValue>,
}

impl Tract {
    pub fn load(model: &Path, threads: usize, input: Input) -> Result<Self> {
        let model = tract_onnx::onnx().model_for_path(model)?.into_optimized()?;
        let executor = if threads > 1 { Executor::multithread(threads) } else { Executor::SingleThread };
        let options = RunOptions { executor: Some(executor), ..Default::default() };
        let plan = TypedSimplePlan::new_with_options(model, &options)?;
        let input = Tensor::from_shape(&input.dims, &input.elements)?.into_tvalue();
        Ok(Self { state: plan.spawn()?, input, outputs: Vec::new() })
    }
}

impl Engine for Tract {
    fn run(&mut self) -> Result<()> {
        self.outputs = self.state.run(tvec!(self.input.clone()))?.to_vec();
        Ok(())
    }

    fn output(&self) -> Result<Vec<f32>> {
        let output = self.outputs.first().context("no output")?;
        Ok(output.to_plain_array_view::<f32>()?.iter().copied().collect())
    }
}

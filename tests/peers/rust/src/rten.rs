//! rten: weights packed beforehand, with its own thread pool.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rten::{Model, ModelOptions, RunOptions, ThreadPool, Value};
use rten_tensor::prelude::*;
use rten_tensor::{Tensor, TensorView};

use crate::{Engine, Input};

pub struct Rten {
    model: Model,
    options: RunOptions,
    input: Input,
    output: Option<Value>,
}

impl Rten {
    pub fn load(model: &Path, threads: usize, input: Input) -> Result<Self> {
        let model = ModelOptions::with_all_ops().prepack_weights(true).load_file(model)?;
        let pool = Arc::new(ThreadPool::with_num_threads(threads));
        let options = RunOptions::default().with_thread_pool(Some(pool));
        Ok(Self { model, options, input, output: None })
    }
}

impl Engine for Rten {
    fn run(&mut self) -> Result<()> {
        let view = TensorView::from_data(self.input.dims.as_slice(), self.input.elements.as_slice());
        self.output = Some(self.model.run_one(view.into(), Some(self.options.clone()))?);
        Ok(())
    }

    fn output(&self) -> Result<Vec<f32>> {
        let output: Tensor<f32> = self.output.clone().context("no output")?.try_into()?;
        Ok(output.iter().copied().collect())
    }
}

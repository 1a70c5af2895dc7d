//! Skipstone: default options.

use std::path::Path;

use anyhow::{Context, Result};
use skipstone::{Model, Options, Session, TensorView};

use crate::{Engine, Input};

pub struct Skipstone {
    session: Session,
    input: Input,
}

impl Skipstone {
    pub fn load(model: &Path, threads: usize, input: Input) -> Result<Self> {
        let model = Model::open(model, &Options::default().threads(threads))?;
        Ok(Self { session: model.session()?, input })
    }
}

impl Engine for Skipstone {
    fn run(&mut self) -> Result<()> {
        let view = TensorView::new(&self.input.dims, &self.input.elements).context("elements do not fill the shape")?;
        Ok(self.session.run(&[view])?)
    }

    fn output(&self) -> Result<Vec<f32>> {
        let output = self.session.output(0).context("no output")?;
        Ok(output.elements().context("not f32")?.to_vec())
    }
}

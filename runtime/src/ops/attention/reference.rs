//! The definition of attention: one query of one head at a time, with sums in f64.

use skipstone_kernels::pace::Pace;

use super::{Attention, Head, gather, len_of};
use crate::error::OpError;
use crate::operator::{Operator, Semantics};
use crate::reserve;
use crate::tensor::{Fact, Tensor};

impl Semantics for Attention {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let facts: Vec<&Fact> = inputs.iter().map(|t| t.fact()).collect();
        let s = self.sizes(&facts)?;
        let elements = |at: usize| inputs[at].elements::<f32>().ok_or(OpError::Operand(at));
        let zeros = |fact: Fact| reserve::copies(0.0, fact.shape.elements());
        let mut results: Vec<Vec<f32>> = self.infer(&facts)?.into_iter().map(zeros).collect::<Result<_, _>>()?;
        let no_past: (&[f32], &[f32]) = (&[], &[]);
        let past = self.past_at().map_or(Ok(no_past), |at| Ok::<_, OpError>((elements(at)?, elements(at + 1)?)))?;
        let mut k = reserve::copies(0.0, s.batch * self.kv_heads * s.keys * s.size)?;
        let mut v = reserve::copies(0.0, s.batch * self.kv_heads * s.keys * s.v_size)?;
        gather(&s, (self.kv_heads, s.size), elements(1)?, past.0, &mut k, &Pace::free())?;
        gather(&s, (self.kv_heads, s.v_size), elements(2)?, past.1, &mut v, &Pace::free())?;
        let q = elements(0)?;
        let lens = self.lens_at().and_then(|at| inputs[at].elements::<i64>());
        let empty = results[0].is_empty() && (self.scores.is_none() || results.last().is_none_or(Vec::is_empty));
        let images = if empty { 0 } else { s.batch };
        for (image, head) in (0..images).flat_map(|image| (0..self.heads).map(move |head| (image, head))) {
            let of_q = Head::new(s.rows, image, (head, self.heads), s.queries, s.size);
            let of_y = Head::new(s.rows, image, (head, self.heads), s.queries, s.v_size);
            let kv = image * self.kv_heads + head / (self.heads / self.kv_heads);
            for query in 0..s.queries {
                let q = &q[of_q.start + query * of_q.row..][..s.size];
                let mut stages: [Vec<f64>; 4] = Default::default();
                for stage in &mut stages {
                    *stage = reserve::empty(s.keys)?;
                }
                let seen = self.visible(&s, query, len_of(lens, image, s.keys)?);
                for key in 0..s.keys {
                    let k = &k[(kv * s.keys + key) * s.size..][..s.size];
                    let sum: f64 = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                    let (scaled, cap) = (sum * f64::from(self.scale), f64::from(self.softcap));
                    let capped = if cap > 0.0 { (scaled / cap).tanh() * cap } else { scaled };
                    let mask = self.mask_at().map_or(0.0, |at| {
                        let (start, len) = self.mask_row(inputs[at].shape(), [image, head, query]);
                        match (inputs[at].elements::<f32>(), inputs[at].bytes().get(start + key)) {
                            _ if key >= len => f64::NEG_INFINITY,
                            (Some(mask), _) => f64::from(mask[start + key]),
                            (None, Some(0)) => f64::NEG_INFINITY,
                            (None, _) => 0.0,
                        }
                    });
                    let masked = if key < seen { capped + mask } else { f64::NEG_INFINITY };
                    [scaled, capped, masked].into_iter().zip(&mut stages).for_each(|(score, stage)| stage.push(score));
                }
                let largest = stages[2].iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let power = |score: f64| if largest == f64::NEG_INFINITY { 0.0 } else { (score - largest).exp() };
                let sum = stages[2].iter().map(|&score| power(score)).sum::<f64>();
                let [_, _, masked, weights] = &mut stages;
                weights.extend(masked.iter().map(|&score| power(score) / if sum == 0.0 { 1.0 } else { sum }));
                for (j, y) in results[0][of_y.start + query * of_y.row..][..s.v_size].iter_mut().enumerate() {
                    let terms = stages[3].iter().enumerate();
                    *y = terms.map(|(key, w)| w * f64::from(v[(kv * s.keys + key) * s.v_size + j])).sum::<f64>() as f32;
                }
                if let Some(scores) = self.scores {
                    let start = ((image * self.heads + head) * s.queries + query) * s.keys;
                    let out = &mut results.last_mut().ok_or(OpError::Operand(0))?[start..start + s.keys];
                    out.iter_mut().zip(&stages[scores as usize]).for_each(|(out, &score)| *out = score as f32);
                }
            }
        }
        if self.present {
            results[1] = k;
            results[2] = v;
        }
        let results = results.into_iter().zip(self.infer(&facts)?);
        results.map(|(elements, fact)| Tensor::from_slice(&fact.shape, &elements)).collect()
    }
}

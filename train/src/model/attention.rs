//! Who looks at whom.

use std::sync::OnceLock;

use tch::{Device, Kind, Tensor};

use crate::device::upload;
use crate::error::{TrainError, guard};
use crate::shim;

/// A group's shortest document has at least this share of the tokens of its longest.
const LEAST_SHARE: f64 = 0.8;

/// How tokens look at tokens.
pub trait Attention {
    /// Attends within a layer: queries \[T, H, D\], keys and values \[T, K, D\], positions applied. Gives \[T, H·D\].
    fn attend(&mut self, layer: usize, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor;
}

/// Each document by itself, each token at those up to itself.
///
/// In bf16 on a GPU by the flash kernel, which takes documents as they lie, if what it gives there is right. Else
/// Documents of about one length are attended to together, in rows as long as the longest of them. What fills the rest of
/// a row stands behind the document: no token of it looks there, so no mask is needed, and what the filling itself comes
/// to is not read.
#[derive(Debug)]
pub struct PackedCausal {
    groups: Vec<Group>,
    /// Where each token is in the groups, laid one after the other: \[T\]. None where they are in order and without
    /// filling.
    back: Option<Tensor>,
    /// On a GPU.
    lying: Option<Lying>,
}

/// Documents as they lie, one after the other.
#[derive(Debug)]
struct Lying {
    /// Where each begins, and T: int32.
    starts: Tensor,
    longest: i64,
}

/// Documents that are attended to at once: a matrix \[documents, longest\].
#[derive(Debug)]
struct Group {
    documents: i64,
    longest: i64,
    /// The token that each place of the matrix is filled from: \[documents · longest\].
    places: Tensor,
}

impl PackedCausal {
    /// For documents that start here; T stands at the end.
    pub fn new(doc_starts: &[i64], device: Device) -> Self {
        let mut documents: Vec<(i64, i64)> = doc_starts.windows(2).map(|pair| (pair[0], pair[1] - pair[0])).collect();
        // Stable, so that equal lengths stay in order.
        documents.sort_by_key(|(_, length)| -length);
        let tokens = doc_starts.last().copied().unwrap_or(0);
        let lying = device.is_cuda().then(|| Lying {
            starts: upload(doc_starts, device).to_kind(Kind::Int),
            longest: documents.first().map_or(0, |document| document.1),
        });
        let mut back = vec![0; tokens as usize];
        let (mut groups, mut laid) = (Vec::new(), 0);
        let about_equal = |a: &(i64, i64), b: &(i64, i64)| b.1 as f64 >= LEAST_SHARE * a.1 as f64;
        let mut rest = &documents[..];
        while let Some(first) = rest.first() {
            let count = rest.iter().take_while(|document| about_equal(first, document)).count();
            let (group, others) = rest.split_at(count);
            let longest = first.1;
            let mut places = Vec::with_capacity(count * longest as usize);
            for &(start, length) in group {
                for at in 0..length {
                    back[(start + at) as usize] = laid + places.len() as i64;
                    places.push(start + at);
                }
                // Any token will do.
                places.resize(places.len() + (longest - length) as usize, start);
            }
            laid += places.len() as i64;
            let places = upload(&places, device);
            groups.push(Group { documents: count as i64, longest, places });
            rest = others;
        }
        let in_order = laid == tokens && back.iter().enumerate().all(|(at, &place)| at as i64 == place);
        Self { groups, back: (!in_order).then(|| upload(&back, device)), lying }
    }

    /// In rows, a group at a time: on every device, in every number format.
    fn in_rows(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
        // More than one group have gaps between them, or another order.
        let in_order = self.back.is_none() && self.groups.len() == 1;
        let outputs: Vec<Tensor> = self
            .groups
            .iter()
            .map(|group| {
                // \[T, heads, D\] to \[documents, heads, longest, D\].
                let rows = |tensor: &Tensor| {
                    let picked = if in_order { tensor.shallow_clone() } else { gather(tensor, &group.places) };
                    let shape = tensor.size();
                    picked.view([group.documents, group.longest, shape[1], shape[2]]).transpose(1, 2)
                };
                let (query, key, value) = (rows(query), rows(key), rows(value));
                let none = None::<&Tensor>;
                let output = Tensor::scaled_dot_product_attention(&query, &key, &value, none, 0.0, true, None, true);
                output.transpose(1, 2).flatten(2, 3).flatten(0, 1)
            })
            .collect();
        let laid = match &outputs[..] {
            [only] => only.shallow_clone(),
            _ => Tensor::cat(&outputs, 0),
        };
        match &self.back {
            None => laid,
            Some(back) => gather(&laid, back),
        }
    }
}

impl Lying {
    /// By the flash kernel; none where it does not serve.
    fn attend(&self, heads: [&Tensor; 3]) -> Option<Tensor> {
        static FLASH: OnceLock<bool> = OnceLock::new();
        let [query, ..] = heads;
        let serves =
            query.kind() == Kind::BFloat16 && *FLASH.get_or_init(|| is_right(shim::flash_attention, query.device()));
        let output = serves.then(|| shim::flash_attention(heads, &self.starts, self.longest).ok())??;
        Some(output.flatten(1, 2))
    }
}

/// Attends documents as they lie: queries, keys and values, where documents begin, the longest of them.
type Kernel = fn([&Tensor; 3], &Tensor, i64) -> Result<Tensor, TrainError>;

/// Whether a kernel's outputs and gradients are about those of rows. Tried on a few short documents, since which kernel
/// runs is up to the device, its driver and libtorch.
fn is_right(kernel: Kernel, device: Device) -> bool {
    const STARTS: [i64; 4] = [0, 5, 40, 64];
    // bf16 has 8 bits; a wrong mask or scale is off by much more.
    const TOLERANCE: f64 = 0.05;
    let (tokens, longest, size) = (64, 35, 64);
    let starts = upload(&STARTS, device).to_kind(Kind::Int);
    let packed = PackedCausal::new(&STARTS, device);
    let varied = |heads: i64, rate: f64| {
        let flat = Tensor::arange(tokens * heads * size, (Kind::Float, device)) * rate;
        flat.sin().view([tokens, heads, size]).to_kind(Kind::BFloat16)
    };
    let differentiated = |attend: &dyn Fn([&Tensor; 3]) -> Result<Tensor, TrainError>| {
        tch::with_grad(|| -> Result<Vec<Tensor>, TrainError> {
            let leaves = [varied(4, 0.37), varied(2, 0.53), varied(2, 0.71)].map(|leaf| leaf.set_requires_grad(true));
            let output = attend(leaves.each_ref())?.view([tokens, 4, size]);
            if !output.requires_grad() {
                return Err(TrainError::Usage("a kernel of attention without gradients".into()));
            }
            let mut found =
                Tensor::run_backward(&[(&output * varied(4, 0.91)).sum(Kind::Float)], &leaves, false, false);
            found.push(output.detach());
            Ok(found)
        })
    };
    let compared = guard(|| {
        let rows = differentiated(&|[query, key, value]| Ok(packed.in_rows(query, key, value)))?;
        let found = differentiated(&|heads| kernel(heads, &starts, longest))?;
        Ok(rows.iter().zip(&found).all(|(expected, found)| {
            let off = (expected - found).to_kind(Kind::Float).abs().max();
            (off / expected.to_kind(Kind::Float).abs().max()).double_value(&[]) <= TOLERANCE
        }))
    });
    compared.unwrap_or(false)
}

impl Attention for PackedCausal {
    fn attend(&mut self, _layer: usize, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
        let flash = self.lying.as_ref().and_then(|lying| lying.attend([query, key, value]));
        flash.unwrap_or_else(|| self.in_rows(query, key, value))
    }
}

/// Rows of a tensor \[T, …\]. As an embedding: its gradient is summed by all processors, that of `index_select` row by row.
fn gather(tensor: &Tensor, places: &Tensor) -> Tensor {
    let shape = tensor.size();
    let rows = Tensor::embedding(&tensor.flatten(1, -1), places, -1, false, false);
    let shape: Vec<i64> = std::iter::once(places.numel() as i64).chain(shape.into_iter().skip(1)).collect();
    rows.view(shape.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Documents one at a time, by SDPA: what the flash kernel computes.
    fn one_at_a_time([query, key, value]: [&Tensor; 3], starts: &Tensor, causal: bool) -> Tensor {
        let starts: Vec<i64> = (0..starts.size()[0]).map(|at| starts.int64_value(&[at])).collect();
        let documents = starts.windows(2).map(|pair| {
            let rows = |tensor: &Tensor| tensor.slice(0, pair[0], pair[1], 1).transpose(0, 1).unsqueeze(0);
            let (query, key, value) = (rows(query), rows(key), rows(value));
            let output =
                Tensor::scaled_dot_product_attention(&query, &key, &value, None::<&Tensor>, 0.0, causal, None, true);
            output.squeeze_dim(0).transpose(0, 1)
        });
        Tensor::cat(&documents.collect::<Vec<_>>(), 0)
    }

    #[test]
    fn a_kernel_serves_where_it_gives_what_rows_give() {
        let kernels: [(Kernel, bool); 5] = [
            (|heads, starts, _| Ok(one_at_a_time(heads, starts, true)), true),
            (|heads, starts, _| Ok(one_at_a_time(heads, starts, false)), false),
            // The output is right, and no gradient comes back.
            (|heads, starts, _| Ok(one_at_a_time(heads, starts, true).detach()), false),
            // Documents see each other.
            (|heads, _, _| Ok(one_at_a_time(heads, &Tensor::from_slice(&[0, 64]), true)), false),
            (|heads, starts, longest| shim::flash_attention(heads, starts, longest), false),
        ];
        for (number, (kernel, serves)) in kernels.into_iter().enumerate() {
            assert_eq!(is_right(kernel, Device::Cpu), serves, "kernel {number}");
        }
    }
}

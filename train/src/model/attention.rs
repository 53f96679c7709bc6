//! Who looks at whom.

use tch::{Device, Tensor};

/// A group's shortest document has at least this share of the tokens of its longest.
const LEAST_SHARE: f64 = 0.8;

/// How tokens look at tokens.
pub trait Attention {
    /// Attends within a layer: queries \[T, H, D\], keys and values \[T, K, D\], positions applied. Gives \[T, H·D\].
    fn attend(&mut self, layer: usize, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor;
}

/// Each document by itself, each token at those up to itself.
///
/// Documents of about one length are attended to together, in rows as long as the longest of them. What fills the rest of
/// a row stands behind the document: no token of it looks there, so no mask is needed, and what the filling itself comes
/// to is not read.
#[derive(Debug)]
pub struct PackedCausal {
    groups: Vec<Group>,
    /// Where each token is in the groups, laid one after the other: \[T\]. None where they are in order and without
    /// filling.
    back: Option<Tensor>,
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
            let places = Tensor::from_slice(&places).to_device(device);
            groups.push(Group { documents: count as i64, longest, places });
            rest = others;
        }
        let in_order = laid == tokens && back.iter().enumerate().all(|(at, &place)| at as i64 == place);
        Self { groups, back: (!in_order).then(|| Tensor::from_slice(&back).to_device(device)) }
    }
}

impl Attention for PackedCausal {
    fn attend(&mut self, _layer: usize, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
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

/// Rows of a tensor \[T, …\]. As an embedding: its gradient is summed by all processors, that of `index_select` row by row.
fn gather(tensor: &Tensor, places: &Tensor) -> Tensor {
    let shape = tensor.size();
    let rows = Tensor::embedding(&tensor.flatten(1, -1), places, -1, false, false);
    let shape: Vec<i64> = std::iter::once(places.numel() as i64).chain(shape.into_iter().skip(1)).collect();
    rows.view(shape.as_slice())
}

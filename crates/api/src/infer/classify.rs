//! The classification extension: instead of a tensor, its largest values with their positions and labels, as texts
//! `value:position[:label]`.

use bytes::Bytes;
use tidemill_core::tensors::{DataType, Tensor, TensorData};

use crate::error::ApiError;

/// The `count` largest values of each row; of the whole tensor where it holds no rows.
pub(crate) fn classify(
    tensor: &Tensor,
    count: usize,
    rows: bool,
    labels: &[String],
) -> Result<Tensor, ApiError> {
    let Some(values) = tensor.to_f64() else {
        return Err(ApiError::bad_request(
            "bad_output",
            format!(
                "output `{}` is BYTES: only numbers can be classified, so ask for it without `classification`",
                tensor.name
            ),
        ));
    };
    let batch = if rows { tensor.rows() } else { 1 };
    let width = values.len() / batch.max(1);
    let count = count.min(width);
    let mut strings = Vec::with_capacity(batch * count);
    for row in values.chunks_exact(width.max(1)) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        // Equals stay in order, so that an answer does not depend on how one sorts.
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        for &position in &order[..count] {
            if row[position].is_nan() {
                // Nobody answered.
                strings.push(Some(Bytes::new()));
                continue;
            }
            let mut text = format!("{:.6}:{position}", row[position]);
            if let Some(label) = labels.get(position) {
                text.push(':');
                text.push_str(label);
            }
            strings.push(Some(Bytes::from(text)));
        }
    }
    let shape = if rows { vec![batch, count] } else { vec![count] };
    Ok(Tensor {
        name: tensor.name.clone(),
        datatype: DataType::Bytes,
        shape,
        data: TensorData::Strings(strings),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_values_of_each_row_come_first_with_their_labels() {
        let tensor = Tensor::of_f32("p", vec![2, 3], &[0.1, 0.946_116, 0.2, 0.5, 0.5, 0.0]).unwrap();
        let labels = ["a".to_owned(), "b".to_owned()];
        let texts = |tensor: &Tensor| -> Vec<String> {
            let TensorData::Strings(strings) = &tensor.data else {
                panic!("strings")
            };
            let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
            strings.iter().flatten().map(text).collect()
        };
        let top = classify(&tensor, 2, true, &labels).unwrap();
        assert_eq!(top.shape, [2, 2]);
        assert_eq!(
            texts(&top),
            ["0.946116:1:b", "0.200000:2", "0.500000:0:a", "0.500000:1:b"]
        );
        let whole = classify(&tensor, 9, false, &[]).unwrap();
        assert_eq!((whole.shape[0], texts(&whole)[0].as_str()), (6, "0.946116:1"));
        let strings = Tensor::strings("s", vec![1], vec![None]).unwrap();
        assert!(classify(&strings, 1, true, &[]).is_err());
    }
}

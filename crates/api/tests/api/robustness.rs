//! Whatever a client writes, it gets an answer for each row or an error of its own: never a fault of ours.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fake::App;

fn cell() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (-300_i64..300).prop_map(|n| json!(n)),
        4 => "[A-Z]{0,3}".prop_map(|text| json!(text)),
        2 => Just(Value::Null),
        1 => any::<u64>().prop_map(|n| json!(n)),
        1 => any::<f64>().prop_map(|n| json!(n)),
        1 => any::<bool>().prop_map(|b| json!(b)),
        1 => Just(json!([1, [2]])),
        1 => Just(json!({"a": 1})),
    ]
}

fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("distance"),
        Just("carrier"),
        Just("flight_id"),
        Just("other")
    ]
}

fn tensor() -> impl Strategy<Value = Value> {
    let datatype = prop_oneof![Just("FP64"), Just("BYTES"), Just("INT8"), Just("BOOL"), Just("X")];
    let shape = prop::collection::vec(-1_i64..4, 0..3);
    let data = prop::collection::vec(cell(), 0..4);
    (name(), datatype, shape, data, any::<bool>()).prop_map(|(name, datatype, shape, data, fit)| {
        let shape = if fit { vec![data.len() as i64] } else { shape };
        json!({ "name": name, "datatype": datatype, "shape": shape, "data": data })
    })
}

fn rows() -> impl Strategy<Value = Value> {
    let list = prop::collection::vec(cell(), 0..3).prop_map(|cells| json!(cells));
    let record = prop::collection::vec((name(), cell()), 0..4).prop_map(|fields| {
        fields
            .into_iter()
            .map(|(n, c)| (n.to_owned(), c))
            .collect::<Value>()
    });
    prop::collection::vec(prop_oneof![list, record, cell()], 0..4).prop_map(|rows| json!(rows))
}

proptest! {
    #[test]
    fn any_inference_request_gets_an_answer_a_row_or_a_400(
        tensors in prop::collection::vec(tensor(), 0..4),
        model in prop_oneof![Just("flights"), Just("grades")],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let app = App::new();
            let path = format!("/v2/models/{model}/infer");
            let reply = app.post(&path, json!({ "inputs": tensors })).await;
            match reply.status.as_u16() {
                200 => {
                    let rows = &reply.json()["outputs"][0]["shape"][0];
                    prop_assert!(rows.as_u64() >= Some(1));
                }
                status => prop_assert_eq!(status, 400, "{}", reply.text),
            }
            Ok(())
        })?;
    }

    #[test]
    fn any_scoring_request_gets_an_answer_a_row_or_a_400(
        form in prop_oneof![Just("inputs"), Just("instances"), Just("dataframe_records")],
        rows in rows(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let app = App::new();
            let count = rows.as_array().map_or(0, Vec::len);
            let mut body = json!({});
            body[form] = rows;
            let reply = app.post("/invocations", body).await;
            match reply.status.as_u16() {
                200 => prop_assert_eq!(reply.json()["predictions"].as_array().map(Vec::len), Some(count)),
                status => prop_assert_eq!(status, 400, "{}", reply.text),
            }
            Ok(())
        })?;
    }
}

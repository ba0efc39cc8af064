use super::*;

fn asks(tensors: Vec<Tensor>) -> BoxFuture<'static, Result<Payload, PortError>> {
    Box::pin(async move {
        let x = tensors[0].to_f64().unwrap();
        let TensorData::Strings(texts) = &tensors[1].data else {
            panic!("texts")
        };
        // Of a row (a, b) and a text: a·b, and 10 if the text is there.
        let answer = x.chunks(2).zip(texts).flat_map(|(row, text)| {
            let known = if text.is_some() { 10.0 } else { 0.0 };
            [row[0] * row[1], known]
        });
        let answer: Vec<f64> = answer.collect();
        let label = Tensor::of_numbers(
            "label",
            DataType::Int64,
            vec![texts.len()],
            &vec![1.0; texts.len()],
        );
        Ok(Payload::Tensors(vec![
            label.unwrap(),
            Tensor::of_f64("y", vec![texts.len(), 2], &answer).unwrap(),
        ]))
    })
}

fn rows() -> Vec<Tensor> {
    vec![
        Tensor::of_f32("x", vec![2, 2], &[3.0, 4.0, 1.0, 2.0]).unwrap(),
        Tensor::strings("t", vec![2], vec![Some("a".into()), None]).unwrap(),
    ]
}

fn options() -> ExplainOptions {
    ExplainOptions::default()
}

#[tokio::test]
async fn a_matrix_and_a_column_of_texts_are_explained_for_every_output() {
    let mut spec = TensorSpec::new("y", DataType::Fp64, vec![-1, 2]);
    spec.labels = vec!["product".into(), "known".into()];
    for (method, at_once) in [(ExplainMethod::Auto, 3), (ExplainMethod::Sampling, 100)] {
        let options = ExplainOptions { method, ..options() };
        let found = by_asking(rows(), std::slice::from_ref(&spec), &options, at_once, &asks)
            .await
            .unwrap();
        assert_eq!((found.rows(), found.features(), found.outputs), (2, 3, 2));
        assert_eq!((found.output.as_str(), found.labels.len()), ("y", 2));
        assert_eq!(found.inputs[0].width, Some(2));
        let close = |(got, base): (&[f64], f64), expected: [f64; 3]| {
            base == 0.0 && got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9)
        };
        assert!(close(found.of(0, 0), [6.0, 6.0, 0.0]), "{found:?}");
        assert!(close(found.of(0, 1), [0.0, 0.0, 10.0]), "{found:?}");
        assert!(close(found.of(1, 0), [1.0, 1.0, 0.0]), "{found:?}");
        assert!(close(found.of(1, 1), [0.0, 0.0, 0.0]), "{found:?}");
    }
}

#[tokio::test]
async fn a_baseline_is_taken_and_what_does_not_fit_is_named() {
    let mut baselined = options();
    baselined
        .baseline
        .insert("x".to_owned(), serde_json::json!([1, 1]));
    let found = by_asking(rows(), &[], &baselined, 8, &asks).await.unwrap();
    // 3·4 − 1·1, of which a turn first gives 2 + 8 or 3 + 8.
    let (shares, base) = found.of(0, 0);
    assert_eq!(base, 1.0);
    assert!((shares[0] - 5.0).abs() < 1e-9 && (shares[1] - 6.0).abs() < 1e-9);
    for (baseline, said) in [
        (serde_json::json!({"x": "a"}), "does not fit input `x`"),
        (serde_json::json!({"x": [1, 2, 3]}), "does not fit input `x`"),
        (serde_json::json!({"t": 1}), "does not fit input `t`"),
        (serde_json::json!({"z": 1}), "is no input; expected `x`, `t`"),
    ] {
        let wrong = ExplainOptions {
            baseline: serde_json::from_value(baseline).unwrap(),
            ..options()
        };
        let error = by_asking(rows(), &[], &wrong, 8, &asks).await.unwrap_err();
        assert!(error.message.contains(said), "{error}");
        assert_eq!(error.code, "not_explainable");
    }
    let strict = ExplainOptions {
        strict: true,
        ..options()
    };
    let error = by_asking(rows(), &[], &strict, 8, &asks).await.unwrap_err();
    assert!(error.message.contains("a value for `x`"), "{error}");
    let wanted = ExplainOptions {
        output: Some("z".to_owned()),
        ..options()
    };
    let error = by_asking(rows(), &[], &wanted, 8, &asks).await.unwrap_err();
    assert!(error.message.contains("but `label`, `y`"), "{error}");
}

#[tokio::test]
async fn what_would_take_too_long_is_refused_before_the_model_is_asked() {
    let wide = || vec![Tensor::of_f64("x", vec![1, 64], &[0.0; 64]).unwrap()];
    let exact = ExplainOptions {
        method: ExplainMethod::Exact,
        ..options()
    };
    let error = by_asking(wide(), &[], &exact, 8, &asks).await.unwrap_err();
    assert!(error.message.contains("ask for `sampling`"), "{error}");
    let long = ExplainOptions {
        samples: u32::MAX,
        ..options()
    };
    let error = by_asking(wide(), &[], &long, 8, &asks).await.unwrap_err();
    assert!(error.message.contains("lower `samples`"), "{error}");
}

#[tokio::test]
async fn what_would_take_too_much_memory_is_refused_before_anything_is_planned() {
    let features = 150_528;
    let image = Tensor::of_f64("x", vec![1, features], &vec![0.0; features]).unwrap();
    let few = ExplainOptions {
        samples: 3,
        ..options()
    };
    let error = by_asking(vec![image], &[], &few, 8, &asks).await.unwrap_err();
    assert_eq!(error.code, "not_explainable");
    assert!(error.message.contains("by fewer features"), "{error}");
}

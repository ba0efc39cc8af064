use std::path::Path;

use crate::spec::parse;

const START: &str =
    "name: m\ndata:\n  source: a.csv\nlabel:\n  name: y\n  task: binary\nfeatures:\n  x: numeric\n";

fn error(graphs: &str) -> String {
    let text = format!("{START}graphs:\n{graphs}");
    parse(Path::new("tidemill.yaml"), &text).unwrap_err().to_string()
}

const GOOD: &str = "  score:
    inputs:
      x: {datatype: FP64}
      city: {datatype: BYTES, optional: true}
    nodes:
      clean:
        inputs: {x: x}
        transform:
        - impute: {x: 0}
        - scale: {x: {mean: 1, std: 2}}
      big:
        inputs: {f: clean.x, city: city}
        outputs: {probability: p}
        model: {deployment: big, version: 2}
      small:
        input: clean
        model: {deployment: small}
      both:
        ensemble: {of: [big.p, small.p], combine: weighted_mean, weights: [2, 1]}
      chosen:
        switch:
          cases:
          - when: {header: x-fast, equals: \"true\"}
            to: small
          - when: {output: clean.x, below: 3}
            to: both
          default: big
    outputs: {probability: chosen.p}
    serving: {timeout: 2s}
";

#[test]
fn a_graph_is_read_with_its_nodes_and_what_they_need() {
    let spec = parse(Path::new("tidemill.yaml"), &format!("{START}graphs:\n{GOOD}")).unwrap();
    let graph = &spec.graphs["score"];
    assert_eq!(graph.nodes["chosen"].kind(), "switch");
    assert_eq!(
        graph.needs(&graph.nodes["chosen"]),
        ["small", "both", "big", "clean"]
    );
    assert_eq!(graph.deployments(), ["big", "small"]);
    let text = serde_json::to_string(graph).unwrap();
    assert_eq!(&serde_json::from_str::<super::GraphSpec>(&text).unwrap(), graph);
}

#[test]
fn what_does_not_hang_together_is_named_with_its_line_and_the_nearest_name() {
    let cases = [
        (
            "input: clean\n        model: {deployment: small}",
            "input: cleen\n        model: {deployment: small}",
            "tidemill.yaml:25: `graphs.score.nodes.small.input`: there is no node `cleen`; did you mean `clean`?",
        ),
        (
            "inputs: {x: x}",
            "inputs: {x: xx}",
            "`xx` is neither an input of the graph nor a `NODE.OUTPUT`; did you mean `x`?",
        ),
        (
            "of: [big.p, small.p]",
            "of: [big.q, small.p]",
            "node `big` has no output `q`",
        ),
        (
            "probability: chosen.p",
            "probability: chosn.p",
            "there is no node `chosn`; did you mean `chosen`?",
        ),
        ("weights: [2, 1]", "weights: [2]", "one for each member"),
        (
            "impute: {x: 0}",
            "impute: {x: 0}\n          clip: {x: {min: 0}}",
            "step 1: exactly one of",
        ),
        (
            "scale: {x: {mean: 1, std: 2}}",
            "scale: {x: {mean: 1}}",
            "step 2: column `x` is scaled by",
        ),
        (
            "model: {deployment: small}",
            "model: {deployment: small}\n        transform: [{select: [x]}]",
            "this one is `model`, `transform`",
        ),
        (
            "input: clean\n        model: {deployment: small}",
            "input: chosen\n        model: {deployment: small}",
            "nodes need one another in a circle: ",
        ),
        (
            "  score:\n",
            "  m:\n",
            "`graphs.m`: `m` is the name of the project's endpoint",
        ),
        (
            "default: big",
            "default: clean\n        input: big",
            "takes the answers that it names, and no input",
        ),
        (
            "city: city}",
            "}",
            "`graphs.score.inputs.city`: input `city` goes nowhere",
        ),
        (
            "chosen.p}",
            "both.p}",
            "`graphs.score.nodes.chosen`: leads to no output",
        ),
        (
            "serving: {timeout: 2s}",
            "serving: {cache: {mib: 1}}",
            "answers by header or key",
        ),
        (
            "outputs: {probability: chosen.p}",
            "output: chosen\n    outputs: {probability: chosen.p}",
            "a graph answers with",
        ),
        (
            "deployment: small}",
            "deployment: score}",
            "graphs ask one another in a circle: score → score",
        ),
        (
            "below: 3",
            "below: 3, min: 4",
            "no number is at least `4` and less than `3`",
        ),
    ];
    for (from, to, expected) in cases {
        assert!(GOOD.contains(from), "{from}");
        let message = error(&GOOD.replacen(from, to, 1));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn an_unknown_key_of_a_node_is_named_with_line_and_column() {
    let message = error(&GOOD.replace("combine: weighted_mean", "combine: weighted_men"));
    assert!(
        message.contains(":28:") && message.contains("did you mean `weighted_mean`"),
        "{message}"
    );
    let message = error(&GOOD.replace("ensemble: {of", "ensembel: {of"));
    assert!(
        message.contains("unknown key `ensembel`; did you mean `ensemble`?"),
        "{message}"
    );
}

#[test]
fn outliers_need_the_statistics_of_their_method() {
    let outlier = |text: &str| {
        error(&format!(
            "  o:\n    inputs: {{x: {{datatype: FP64}}}}\n    nodes:\n      n:\n        outlier: {text}\n    output: n\n"
        ))
    };
    assert!(
        outlier("{method: zscore, columns: {x: {mean: 1}}}")
            .contains("column `x` needs `mean`, and `std` above 0")
    );
    assert!(outlier("{method: iqr, columns: {x: {q1: 2, q3: 1}}}").contains("`q1` and a larger `q3`"));
    assert!(
        outlier("{method: mahalanobis, columns: {x: {mean: 0}}, covariance: [[-1]]}")
            .contains("positive definite")
    );
    assert!(outlier("{columns: {x: {mean: 0}}}").contains("exactly one of `method` and `detector`"));
    assert!(
        outlier("{method: zscore, columns: {x: {mean: 1, std: 1}}, abstain: true}").contains("need `answer`")
    );
}

#[test]
fn a_matrix_is_the_product_of_its_triangle() {
    let matrix = vec![vec![4.0, 2.0, 0.4], vec![2.0, 3.0, 0.5], vec![0.4, 0.5, 1.0]];
    let lower = super::cholesky(&matrix).unwrap();
    for i in 0..3 {
        for j in 0..3 {
            let product: f64 = (0..3).map(|k| lower[i][k] * lower[j][k]).sum();
            assert!((product - matrix[i][j]).abs() < 1e-12);
        }
    }
    assert!(super::cholesky(&[vec![1.0, 2.0], vec![2.0, 1.0]]).is_none());
    assert!(
        super::cholesky(&[vec![1.0, 0.5], vec![0.0, 1.0]]).is_none(),
        "not symmetric"
    );
}

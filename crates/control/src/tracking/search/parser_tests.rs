//! What a filter means, what is refused in which words, and that any text is one or the other.

use proptest::prelude::*;
use tidemill_store::search::{Attribute, Clause, Compare, DatasetField, OrderKey, Subject, Test};

use super::{ModelOrder, Searched, Target, parse_filter, parse_model_order, parse_order};

fn clauses(target: Target, text: &str) -> Vec<Clause> {
    match parse_filter(target, text) {
        Ok(clauses) => clauses,
        Err(error) => panic!("{text}: {error}"),
    }
}

fn refused(target: Target, text: &str) -> String {
    parse_filter(target, text).expect_err(text).to_string()
}

fn one(subject: Subject, test: Test) -> Vec<Clause> {
    vec![Clause { subject, test }]
}

fn metric(key: &str) -> Subject {
    Subject::Metric(key.to_owned())
}

fn param(key: &str) -> Subject {
    Subject::Param(key.to_owned())
}

fn tag(key: &str) -> Subject {
    Subject::Tag(key.to_owned())
}

fn equals(text: &str) -> Test {
    Test::Equals(text.to_owned())
}

#[test]
fn clauses_are_read_as_mlflow_reads_them() {
    let number = |compare, number| Test::Number(compare, number);
    let cases = [
        (
            "metric.acc >= 0.94",
            metric("acc"),
            number(Compare::GreaterOrEqual, 0.94),
        ),
        (
            "metrics.acc>=100",
            metric("acc"),
            number(Compare::GreaterOrEqual, 100.0),
        ),
        (
            "metrics.acc > -1.5e-3",
            metric("acc"),
            number(Compare::Greater, -1.5e-3),
        ),
        ("metrics.acc < .5", metric("acc"), number(Compare::Less, 0.5)),
        ("metrics.acc < 5.", metric("acc"), number(Compare::Less, 5.0)),
        (
            "metrics.acc <= 1e999",
            metric("acc"),
            number(Compare::LessOrEqual, f64::MAX),
        ),
        (
            "`metric`.a >= 0.1",
            metric("a"),
            number(Compare::GreaterOrEqual, 0.1),
        ),
        (
            "metric.\"legit name\" >= 0.243",
            metric("legit name"),
            number(Compare::GreaterOrEqual, 0.243),
        ),
        (
            "metrics.`spacey name` > 5",
            metric("spacey name"),
            number(Compare::Greater, 5.0),
        ),
        (
            "metrics.\"X//Y#$$@&Z\" = 3",
            metric("X//Y#$$@&Z"),
            number(Compare::Equal, 3.0),
        ),
        (
            "metrics.\"accuracy.2.0\" > 5",
            metric("accuracy.2.0"),
            number(Compare::Greater, 5.0),
        ),
        (
            "metrics.train/loss > 5",
            metric("train/loss"),
            number(Compare::Greater, 5.0),
        ),
        ("metrics.a-b > 5", metric("a-b"), number(Compare::Greater, 5.0)),
        ("params.m!='tf'", param("m"), Test::Differs("tf".to_owned())),
        ("params.\"m\"!=\"tf\"", param("m"), Test::Differs("tf".to_owned())),
        ("parameters.m = \"L'Hosp\"", param("m"), equals("L'Hosp")),
        ("params.m = ''", param("m"), equals("")),
        ("params.m = 'it''s'", param("m"), equals("it''s")),
        ("params.m like 'x%'", param("m"), Test::Like("x%".to_owned())),
        ("params.m iLike 'x%'", param("m"), Test::Ilike("x%".to_owned())),
        ("params.1a = 'x'", param("1a"), equals("x")),
        (
            "tags.version = 'commit-hash'",
            tag("version"),
            equals("commit-hash"),
        ),
        (
            "`tags`.source_name = 'a notebook'",
            tag("source_name"),
            equals("a notebook"),
        ),
        ("tags.mlflow.user = 'x; y'", tag("mlflow.user"), equals("x; y")),
        ("tags.a IS NULL", tag("a"), Test::IsNull),
        ("params.a is not null", param("a"), Test::IsNotNull),
        (
            "attribute.start_time >= 1234",
            Subject::Attribute(Attribute::StartTime),
            number(Compare::GreaterOrEqual, 1234.0),
        ),
        (
            "created >= 5.5",
            Subject::Attribute(Attribute::StartTime),
            number(Compare::GreaterOrEqual, 5.5),
        ),
        (
            "run.status = 'RUNNING'",
            Subject::Attribute(Attribute::Status),
            equals("RUNNING"),
        ),
        (
            "attributes.`Run name` = 'x'",
            Subject::Attribute(Attribute::RunName),
            equals("x"),
        ),
        (
            "`run name` = 'x'",
            Subject::Attribute(Attribute::RunName),
            equals("x"),
        ),
        (
            "run_id IN ('a', \"b\",)",
            Subject::Attribute(Attribute::RunId),
            Test::In(vec!["a".to_owned(), "b".to_owned()]),
        ),
        (
            "run_id not in ('a')",
            Subject::Attribute(Attribute::RunId),
            Test::NotIn(vec!["a".to_owned()]),
        ),
        (
            "dataset.name = 'my_dataset'",
            Subject::Dataset(DatasetField::Name),
            equals("my_dataset"),
        ),
        (
            "datasets.context IN ('X')",
            Subject::Dataset(DatasetField::Context),
            Test::In(vec!["X".to_owned()]),
        ),
    ];
    for (text, subject, test) in cases {
        assert_eq!(clauses(Target::Runs, text), one(subject, test), "{text}");
    }
    assert_eq!(clauses(Target::Runs, ""), []);
    for text in [
        "metrics.a > 1 AND params.b='x'and tags.c != 'y'",
        "metrics.a > 1 params.b = 'x' AND AND\ntags.c != 'y' and",
    ] {
        assert_eq!(clauses(Target::Runs, text).len(), 3, "{text}");
    }
}

#[test]
fn what_is_wrong_with_a_filter_is_said_in_mlflows_words() {
    let cases = [
        (
            "metric.acc >= 0.94; metrics.rmse < 1",
            "Search filter contained multiple expression",
        ),
        ("m.acc >= 0.94", "Invalid entity type 'm'"),
        (
            "acc >= 0.94",
            "Invalid attribute key 'acc' specified. Valid keys are '{'artifact_uri', ",
        ),
        ("attribute.experiment_id != 1", "Invalid attribute key"),
        (
            "metrics.A > 0.1 OR params.B = 'LR'",
            "Invalid clause(s) in filter string: 'OR'",
        ),
        (
            "metrics.A > 0.1 NAND params.B = 'LR'",
            "Invalid clause(s) in filter string: 'NAND'",
        ),
        (
            "metrics.A > 0.1 AND (params.B = 'LR')",
            "Invalid clause(s) in filter string: '(params.B = 'LR')'",
        ),
        ("`metrics.A > 0.1", "Invalid clause(s) in filter string"),
        ("param`.A > 0.1", "Invalid clause(s) in filter string"),
        ("dummy`.A > 0.1", "Invalid clause(s) in filter string"),
        ("`metrics.A` > 0.1", "Invalid entity type '`metrics'"),
        ("attribute.status = true", "Invalid clause(s) in filter string"),
        ("dataset.status = 'true'", "Invalid dataset key 'status'"),
        (
            "metric.model = 'LR'",
            "Expected numeric value type for metric. Found 'LR'",
        ),
        (
            "metrics.acc != metrics.acc",
            "Expected numeric value type for metric. Found metrics.acc",
        ),
        (
            "metrics.acc > 1_000",
            "Expected numeric value type for metric. Found 1_000",
        ),
        (
            "params.acc = 5",
            "Expected a quoted string value for parameter (e.g. 'my-value'). Got value 5",
        ),
        ("tags.acc = 5", "Expected a quoted string value for tag"),
        (
            "1.0 > metrics.acc",
            "Invalid comparison clause. Expected 'Identifier' found '1.0'",
        ),
        ("1==2", "Expected 'Identifier' found '1'"),
        (
            "attribute.status = 1",
            "Expected a quoted string value for attributes. Got value 1",
        ),
        (
            "params.acc = LR",
            "value is either not quoted or unidentified quote types",
        ),
        (
            "params.acc = `LR`",
            "value is either not quoted or unidentified quote types",
        ),
        ("params.'acc = LR", "Invalid clause(s) in filter string"),
        ("params.acc = 'LR", "Invalid clause(s) in filter string"),
        ("params.acc = LR'", "Invalid clause(s) in filter string"),
        ("params.acc = \"LR'", "Invalid clause(s) in filter string"),
        ("tags.acc = = 'LR'", "Invalid clause(s) in filter string"),
        (
            "attribute.status IS 'RUNNING'",
            "Invalid clause(s) in filter string",
        ),
        ("params.acc LR !=", "Invalid clause(s) in filter string"),
        (
            "metric.acc !=",
            "Invalid clause(s) in filter string: 'metric.acc', '!='",
        ),
        (
            "metric.acc IS NULL",
            "IS NULL / IS NOT NULL is only supported for tags and params",
        ),
        ("metrics.abc ~= 1", "Invalid comparator '~=' not one of "),
        ("params.abc >= 'x'", "Invalid comparator '>=' not one of "),
        (
            "params.abc not like 'x'",
            "Invalid comparator 'NOT LIKE' not one of ",
        ),
        (
            "attributes.start_time LIKE 12",
            "Invalid comparator 'LIKE' not one of ",
        ),
        ("datasets.name < 'x'", "Invalid comparator '<' not one of "),
        (
            "start_time > '5'",
            "Expected numeric value type for numeric attribute: start_time. Found '5'",
        ),
        (
            "status IN ('x')",
            "Only the 'run_id' attribute supports comparison with a list of quoted string values.",
        ),
        (
            "run_id IN (1,2)",
            "expected string value, punctuation, or whitespace, but got different type in list: (1,2)",
        ),
        (
            "run_id IN ()",
            "expected a non-empty list of string values, but got empty list",
        ),
        ("run_id IN (,)", "but got ill-formed list"),
        ("run_id IN ('a',,'b')", "but got ill-formed list"),
        ("run_id IN (", "Invalid clause(s) in filter string"),
        ("  ", "Invalid filter '  '. Could not be parsed."),
        ("params.a = 'x\0'", "zero byte"),
    ];
    for (text, expected) in cases {
        let message = refused(Target::Runs, text);
        assert!(message.contains(expected), "{text}: {message}");
    }
    let clause = "params.a = 'b'";
    assert!(refused(Target::Runs, &vec![clause; 401].join(" AND ")).contains("at most 400"));
}

#[test]
fn each_search_knows_its_own_names() {
    let name = |test| one(Subject::Attribute(Attribute::Name), test);
    assert_eq!(
        clauses(Target::Experiments, "name LIKE 'a%'"),
        name(Test::Like("a%".to_owned()))
    );
    assert_eq!(
        clauses(Target::Experiments, "tag.k is null"),
        one(tag("k"), Test::IsNull)
    );
    let ids = Test::In(vec!["1".to_owned()]);
    assert_eq!(
        clauses(Target::Experiments, "experiment_id IN ('1')"),
        one(Subject::Attribute(Attribute::ExperimentId), ids)
    );
    assert!(
        refused(Target::Experiments, "name IS NULL")
            .contains("IS NULL / IS NOT NULL is only supported for tags")
    );
    assert!(refused(Target::Experiments, "metrics.a > 1").contains("Invalid entity type 'metrics'"));

    assert!(
        refused(Target::RegisteredModels, "run_id='x'").contains("Invalid attribute key 'run_id' specified.")
    );
    assert!(
        refused(Target::RegisteredModels, "evilhax = true").contains("Invalid clause(s) in filter string")
    );
    assert!(refused(Target::RegisteredModels, "name!=something").contains(
        "Parameter value is either not quoted or unidentified quote types used for string value something"
    ));
    assert!(refused(Target::RegisteredModels, "tags.a is null").contains("Invalid clause(s)"));

    let version = Test::Number(Compare::LessOrEqual, 3.0);
    assert_eq!(
        clauses(Target::ModelVersions, "version_number<=3"),
        one(Subject::Attribute(Attribute::Version), version)
    );
    assert!(refused(Target::ModelVersions, "run_id IN").contains("Invalid clause(s) in filter string"));
    assert!(refused(Target::ModelVersions, "run_id IN (1,2,3)").contains("got different type in list"));

    let list = Test::NotIn(vec!["m".to_owned()]);
    assert_eq!(clauses(Target::LoggedModels, "name NOT IN ('m',)"), name(list));
    assert_eq!(
        clauses(Target::LoggedModels, "creation_time > 0"),
        one(
            Subject::Attribute(Attribute::CreationTimestamp),
            Test::Number(Compare::Greater, 0.0)
        )
    );
    assert_eq!(
        clauses(Target::LoggedModels, "tags.`tag 3` = 'v'"),
        one(tag("tag 3"), equals("v"))
    );
    for text in ["Foo", "name = 'foo' OR name = 'bar'"] {
        assert!(
            refused(Target::LoggedModels, text).contains("Invalid filter string"),
            "{text}"
        );
    }
    assert!(refused(Target::LoggedModels, "foo.bar = 'a'").contains("Invalid entity type"));
    for text in ["name > 'foo'", "metrics.foo LIKE 0"] {
        assert!(
            refused(Target::LoggedModels, text).contains("Invalid comparison operator"),
            "{text}"
        );
    }
}

#[test]
fn orders_are_read_and_refused_as_by_mlflow() {
    let order = |target, texts: &[&str]| {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        parse_order(target, &texts)
    };
    assert_eq!(
        order(
            Target::Runs,
            &["metrics.`Mean Square Error` DESC", "attribute.Created"]
        )
        .unwrap(),
        [
            OrderKey::by(metric("Mean Square Error"), false),
            OrderKey::by(Subject::Attribute(Attribute::StartTime), true)
        ]
    );
    for (text, expected) in [
        ("m.acc", "Invalid entity type"),
        ("acc", "Invalid attribute key"),
        ("`metrics.A", "Invalid order_by clause"),
        ("`metrics.A`", "Invalid entity type"),
        ("metrics.A != 1", "Invalid order_by clause"),
        ("", "Invalid order_by clause"),
        ("attribute.run_id ACS", "Invalid ordering key"),
        ("attribute.run_id decs blah", "Invalid order_by clause"),
    ] {
        let message = order(Target::Runs, &[text]).expect_err(text).to_string();
        assert!(message.contains(expected), "{text}: {message}");
    }
    for texts in [["timestamp", "last_updated_timestamp"], ["name", "name DESC"]] {
        let message = order(Target::RegisteredModels, &texts).unwrap_err().to_string();
        assert!(
            message.contains("`order_by` contains duplicate fields: ['"),
            "{message}"
        );
    }
    assert!(
        order(Target::RegisteredModels, &["run_id"])
            .unwrap_err()
            .to_string()
            .contains("Invalid order by key")
    );
    assert!(
        order(Target::ModelVersions, &["run_id DESC"])
            .unwrap_err()
            .to_string()
            .contains("Invalid attribute key 'run_id' specified")
    );
    assert!(order(Target::Experiments, &["name", "experiment_id"]).is_ok());

    let model = |field: &str| ModelOrder {
        field_name: Some(field.to_owned()),
        ..ModelOrder::default()
    };
    assert_eq!(
        parse_model_order(&[model("metrics.acc"), model("creation_time")]).unwrap(),
        [
            OrderKey::by(metric("acc"), true),
            OrderKey::by(Subject::Attribute(Attribute::CreationTimestamp), true)
        ]
    );
    assert!(parse_model_order(&[model("params.a")]).is_err());
    assert!(parse_model_order(&[ModelOrder::default()]).is_err());
}

#[test]
fn a_token_of_another_search_or_no_token_at_all_is_refused() {
    let search = Searched::of("1", "metrics.a > 1", "");
    let cursor = tidemill_store::search::Cursor(vec![
        tidemill_store::search::CursorValue::Integer(5),
        tidemill_store::search::CursorValue::Real(1.0),
        tidemill_store::search::CursorValue::Missing(()),
        tidemill_store::search::CursorValue::Text("x".to_owned()),
    ]);
    let token = search.token(Some(cursor.clone())).unwrap();
    assert_eq!(search.after(Some(&token)).unwrap(), Some(cursor));
    assert_eq!(search.after(None).unwrap(), None);
    assert_eq!(search.token(None), None);
    for (search, expected) in [
        (
            Searched::of("2", "metrics.a > 1", ""),
            "Experiment IDs in the page token do not match",
        ),
        (
            Searched::of("1", "", ""),
            "Filter string in the page token does not match",
        ),
        (
            Searched::of("1", "metrics.a > 1", "x"),
            "Order by in the page token does not match",
        ),
    ] {
        let message = search.after(Some(&token)).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    for (token, expected) in [
        ("evilhax", "Invalid page token, could not base64-decode"),
        (
            "eyJvZmZzZXQiOiAxfQ==",
            "Invalid page token, decoded value={\"offset\": 1}",
        ),
    ] {
        let message = search.after(Some(token)).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

/// Texts that can be written between quotes: MLflow's grammar has no way to write those with both kinds.
fn writable() -> impl Strategy<Value = String> {
    "[ -~äß\u{4e00}\n]{0,12}".prop_filter("no quotes that end it", |text| !text.contains(['\'', '"', '\\']))
}

fn keys() -> impl Strategy<Value = String> {
    writable().prop_filter("a key in backticks", |key| !key.is_empty() && !key.contains('`'))
}

fn tests_of_texts() -> impl Strategy<Value = Test> {
    prop_oneof![
        writable().prop_map(Test::Equals),
        "[a-z']{0,5}".prop_map(Test::Differs),
        writable().prop_map(Test::Like),
        "[a-z\"%_]{0,5}".prop_map(Test::Ilike),
    ]
}

fn tests_of_keys() -> impl Strategy<Value = Test> {
    prop_oneof![4 => tests_of_texts(), 1 => Just(Test::IsNull), 1 => Just(Test::IsNotNull)]
}

fn tests_of_numbers() -> impl Strategy<Value = Test> {
    let number = prop_oneof![
        any::<f64>().prop_filter("finite", |n| n.is_finite()),
        Just(f64::MAX),
        Just(-3.0)
    ];
    (prop::sample::select(Compare::ALL), number).prop_map(|(compare, number)| Test::Number(compare, number))
}

fn lists() -> impl Strategy<Value = Test> {
    let texts = || prop::collection::vec("[ -~ä\n]{0,6}", 1..4);
    prop_oneof![texts().prop_map(Test::In), texts().prop_map(Test::NotIn)]
}

fn a_clause() -> impl Strategy<Value = Clause> {
    let clause = |(subject, test)| Clause { subject, test };
    prop_oneof![
        (keys().prop_map(Subject::Metric), tests_of_numbers()).prop_map(clause),
        (keys().prop_map(Subject::Param), tests_of_keys()).prop_map(clause),
        (keys().prop_map(Subject::Tag), tests_of_keys()).prop_map(clause),
        (Just(Subject::Attribute(Attribute::RunId)), lists()).prop_map(clause),
        (Just(Subject::Attribute(Attribute::Status)), tests_of_texts()).prop_map(clause),
        (Just(Subject::Attribute(Attribute::EndTime)), tests_of_numbers()).prop_map(clause),
        (
            prop::sample::select(DatasetField::ALL).prop_map(Subject::Dataset),
            lists()
        )
            .prop_map(clause),
    ]
}

/// Words and signs that filters are made of, in any order.
fn near_filters() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "metrics.a",
        "params.`b`",
        "tags.\"c\"",
        "run_id",
        "IN",
        "NOT",
        "IS",
        "NULL",
        "AND",
        "LIKE",
        "=",
        "!=",
        ">",
        "1",
        "-2.5e",
        "'x'",
        "\"y\"",
        "('a', \"b\")",
        "(",
        ")",
        "'",
        "\"",
        "`",
        "\\",
        "''",
        ".",
        ",",
        ";",
        " ",
        "é",
        "\u{0}",
        "-",
        "1a",
        "attribute.",
        "metrics.",
        "dataset.name",
    ]);
    prop::collection::vec(pieces, 0..14).prop_map(|pieces| pieces.concat())
}

const TARGETS: [Target; 5] = [
    Target::Runs,
    Target::Experiments,
    Target::RegisteredModels,
    Target::ModelVersions,
    Target::LoggedModels,
];

proptest! {
    #[test]
    fn a_tree_that_is_printed_reads_back(clauses in prop::collection::vec(a_clause(), 0..5)) {
        let text: Vec<String> = clauses.iter().map(ToString::to_string).collect();
        let text = text.join(" AND ");
        prop_assert_eq!(parse_filter(Target::Runs, &text).unwrap(), clauses, "{}", text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in prop_oneof![any::<String>(), near_filters()]) {
        for target in TARGETS {
            let _ = parse_filter(target, &text);
            let _ = parse_order(target, std::slice::from_ref(&text));
        }
        let _ = parse_model_order(&[ModelOrder { field_name: Some(text.clone()), ..ModelOrder::default() }]);
        let _ = Searched::of("", "", "").after(Some(&text));
    }
}

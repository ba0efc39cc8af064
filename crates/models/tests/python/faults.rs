//! What goes wrong in a worker stays there.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tidemill_core::clock::{Stopwatch, real_sleep};
use tidemill_core::ports::Blame;
use tidemill_core::servable::CallContext;
use tidemill_core::spec::Span;

use crate::harness::{Place, ask, body, within};

const FAULTY: &str = r#"
import os, signal, sys, time

def predict(what: str = "", seconds: float = 0.0):
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "exit":
        os._exit(3)
    if what == "leave":
        sys.exit(4)
    if what == "loop":
        while True:
            pass
    if what == "memory":
        hoard = []
        while True:
            hoard.append(bytearray(8 << 20))
            time.sleep(0.001)
    if what == "allocate":
        return len(bytearray(64 << 30))
    if what == "flood":
        for i in range(200_000):
            print("x" * 50)
        sys.stdout.write("y" * 3_000_000)
    if what == "child":
        import subprocess
        return subprocess.Popen(["sleep", "600"]).pid
    time.sleep(seconds)
    return os.getpid()
"#;

fn is_running(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

async fn ends(pid: u64) {
    for _ in 0..200 {
        if !is_running(pid) {
            return;
        }
        real_sleep(Duration::from_millis(25)).await;
    }
    panic!("process {pid} still runs");
}

#[tokio::test]
async fn a_worker_that_dies_fails_its_caller_and_the_others_are_answered_by_the_next() {
    let place = Place::new(FAULTY);
    let model = place.load("app:predict").await;
    let first = ask(&model, json!({})).await.unwrap();
    for (what, how) in [("kill", "signal 9"), ("segv", "signal 11"), ("exit", "code 3")] {
        let dying = ask(&model, json!({ "what": what, "seconds": 0.05 }));
        let others = futures_util::future::join_all((0..5).map(|_| ask(&model, json!({}))));
        let (died, others) = tokio::join!(dying, others);
        let error = died.unwrap_err();
        assert_eq!(
            (error.code, error.blame),
            ("worker_died", Blame::Upstream),
            "{error}"
        );
        assert!(error.message.contains(how), "{error}");
        for other in others {
            assert_ne!(other.unwrap(), first);
        }
    }
    // Leaving is an error of the function like any other: the worker stays.
    let before = ask(&model, json!({})).await.unwrap();
    let error = ask(&model, json!({ "what": "leave" })).await.unwrap_err();
    assert_eq!(error.code, "function_raised");
    assert_eq!(ask(&model, json!({})).await.unwrap(), before);
}

#[tokio::test]
async fn a_call_that_takes_too_long_ends_its_worker_and_the_next_call_has_a_fresh_one() {
    let place = Place::new(FAULTY);
    let model = place
        .load_with(|d| d.worker.time_limit = Some(Span::from_micros(300_000)))
        .await;
    let first = ask(&model, json!({})).await.unwrap();
    let watch = Stopwatch::start();
    let looping = ask(&model, json!({ "what": "loop" }));
    let waiting = ask(&model, json!({}));
    let (late, next) = tokio::join!(looping, waiting);
    let error = late.unwrap_err();
    assert_eq!(error.code, "worker_timeout", "{error}");
    assert!(error.message.contains("within 0.3 s"), "{error}");
    assert_ne!(next.unwrap(), first);
    assert!(watch.elapsed() < Duration::from_secs(5), "{:?}", watch.elapsed());
    ends(first.as_u64().unwrap()).await;
}

#[tokio::test]
async fn a_caller_with_less_time_is_told_in_time_and_the_worker_stays() {
    let place = Place::new(FAULTY);
    let model = place.load("app:predict").await;
    let first = ask(&model, json!({})).await.unwrap();
    let watch = Stopwatch::start();
    let asked = body(&json!({ "seconds": 0.5 }));
    let error = model.call(asked, &within(100)).await.unwrap_err();
    assert_eq!(error.code, "worker_timeout", "{error}");
    assert!(
        watch.elapsed() < Duration::from_millis(400),
        "{:?}",
        watch.elapsed()
    );
    // The next call waits until the worker is done with what nobody waits for any more.
    assert_eq!(ask(&model, json!({})).await.unwrap(), first);
    assert!(watch.elapsed() >= Duration::from_millis(500));
}

#[tokio::test]
async fn a_caller_who_leaves_in_the_middle_of_its_bytes_does_not_spoil_those_of_others() {
    let place = Place::new(
        "import os\ndef predict(n: int = 0, text: str = ''):\n    return [os.getpid(), n, len(text)]\n",
    );
    for concurrency in [1, 4] {
        let model = place
            .load_with(|d| {
                d.worker.concurrency = concurrency;
                d.worker.memory_mib = 2_048;
            })
            .await;
        let first = ask(&model, json!({})).await.unwrap();
        let large = body(&json!({ "text": "x".repeat(24 << 20) }));
        let mut left = 0;
        for milliseconds in [1, 3, 8] {
            let short = within(milliseconds);
            left += usize::from(model.call(large.clone(), &short).await.is_err());
            // Dropped by its caller instead.
            let patient = CallContext::default();
            let dropped = model.call(large.clone(), &patient);
            let _ = tokio::time::timeout(Duration::from_millis(milliseconds), dropped).await;
            let others = (0..4).map(|n| ask(&model, json!({ "n": n, "text": "y".repeat(n) })));
            for (n, other) in futures_util::future::join_all(others)
                .await
                .into_iter()
                .enumerate()
            {
                assert_eq!(other.unwrap(), json!([first[0], n, n]));
            }
        }
        assert!(left > 0, "every call was answered in time");
    }
}

#[tokio::test]
async fn a_worker_above_its_memory_is_ended_and_begun_anew() {
    let place = Place::new(FAULTY);
    let model = place.load_with(|d| d.worker.memory_mib = 256).await;
    for what in ["memory", "allocate"] {
        let error = ask(&model, json!({ "what": what })).await.unwrap_err();
        assert_eq!(error.code, "worker_memory", "{error}");
        assert!(error.message.contains("allowed are 256 MiB"), "{error}");
        ask(&model, json!({})).await.unwrap();
    }
    assert!(
        model.memory() > 1 << 20 && model.memory() < 256 << 20,
        "{}",
        model.memory()
    );
}

#[tokio::test]
async fn printing_without_end_holds_up_nobody() {
    let place = Place::new(FAULTY);
    let model = place.load("app:predict").await;
    let watch = Stopwatch::start();
    ask(&model, json!({ "what": "flood" })).await.unwrap();
    assert!(watch.elapsed() < Duration::from_secs(20), "{:?}", watch.elapsed());
}

#[tokio::test]
async fn what_cannot_be_loaded_says_its_traceback() {
    let cases = [
        (
            "import no_such_module\n",
            "app:predict",
            vec!["No module named 'no_such_module'", "app.py\", line 1"],
        ),
        ("def predict(:\n", "app:predict", vec!["SyntaxError", "app.py"]),
        (
            "x = 1\ndef other(): pass\n",
            "app:predict",
            vec!["there is no `predict`", "other"],
        ),
        ("x = 1\n", "app:x", vec!["which cannot be called"]),
        ("import sys; sys.exit(2)\n", "app:predict", vec!["sys.exit(2)"]),
        (
            "import os, sys\nprint('so far')\nos._exit(9)\n",
            "app:predict",
            vec!["left with code 9 while it was loaded", "so far"],
        ),
        (
            "class Model:\n  def __init__(self): raise ValueError('no weights')\n  def predict(self): pass\n",
            "app:Model",
            vec!["no weights", "line 2, in __init__"],
        ),
    ];
    for (app, target, said) in cases {
        let place = Place::new(app);
        let loader = place.loader(target);
        let error = loader.load().await.unwrap_err();
        assert_eq!((error.code, error.blame), ("worker_start", Blame::Upstream));
        for part in said {
            assert!(
                error.message.contains(part),
                "`{part}` is not in:\n{}",
                error.message
            );
        }
        assert!(!error.message.contains("tidemill_worker"), "{}", error.message);
        let again = loader.load().await.unwrap_err();
        assert!(
            !again.message.contains('\n') && !again.message.contains("so far"),
            "{again}"
        );
    }
    let place = Place::new("def predict(): pass\n");
    let nowhere = place
        .try_with(|d| d.python = "/no/such/python".into())
        .await
        .unwrap_err();
    assert_eq!(nowhere.code, "python_missing");
}

#[tokio::test]
async fn workers_that_keep_dying_are_begun_anew_less_and_less_often() {
    let place = Place::new(FAULTY);
    let model = place.load("app:predict").await;
    let watch = Stopwatch::start();
    for _ in 0..5 {
        ask(&model, json!({ "what": "kill" })).await.unwrap_err();
    }
    ask(&model, json!({})).await.unwrap();
    // Waits of 0, 0.1, 0.2, 0.4 and 0.8 s lie between them.
    assert!(
        watch.elapsed() > Duration::from_millis(1_200),
        "{:?}",
        watch.elapsed()
    );
}

#[tokio::test]
async fn a_model_that_can_be_loaded_no_more_fails_at_once_until_it_is_tried_again() {
    let place = Place::new(FAULTY);
    let model = place.load("app:predict").await;
    std::fs::write(
        place.folder.path().join("app.py"),
        "raise RuntimeError('moved')\n",
    )
    .unwrap();
    ask(&model, json!({ "what": "kill" })).await.unwrap_err();
    for _ in 0..3 {
        let error = ask(&model, json!({})).await.unwrap_err();
        assert_eq!(error.code, "worker_start");
        // It has loaded before: who asks now is not who deployed it.
        assert_eq!(
            error.message,
            "`test` could not be loaded: RuntimeError: moved; the server's log says more"
        );
    }
    std::fs::write(place.folder.path().join("app.py"), FAULTY).unwrap();
    for _ in 0..100 {
        if ask(&model, json!({})).await.is_ok() {
            return;
        }
        real_sleep(Duration::from_millis(50)).await;
    }
    panic!("it did not come back");
}

#[tokio::test]
async fn nothing_outlives_the_deployment_or_its_fork_server() {
    let place = Place::new(FAULTY);
    let model = place.load("app:predict").await;
    let worker = ask(&model, json!({})).await.unwrap().as_u64().unwrap();
    let child = ask(&model, json!({ "what": "child" }))
        .await
        .unwrap()
        .as_u64()
        .unwrap();
    assert!(is_running(worker) && is_running(child));
    let stat = std::fs::read_to_string(Path::new("/proc").join(worker.to_string()).join("stat")).unwrap();
    let server: u64 = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    // The fork server dies: its workers with it, and the next call has others.
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &server.to_string()])
            .status()
            .unwrap()
            .success()
    );
    ends(worker).await;
    let next = ask(&model, json!({})).await;
    let next = if next.is_err() {
        ask(&model, json!({})).await
    } else {
        next
    };
    let next = next.unwrap().as_u64().unwrap();
    assert_ne!(next, worker);
    let child = ask(&model, json!({ "what": "child" }))
        .await
        .unwrap()
        .as_u64()
        .unwrap();
    drop(model);
    ends(next).await;
    ends(child).await;
}

#[test]
fn what_a_worker_started_ends_with_it_where_the_server_stops() {
    let place = Place::new(FAULTY);
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let serving = runtime();
    let (model, child) = serving.block_on(async {
        let model = place.load("app:predict").await;
        let child = ask(&model, json!({ "what": "child" })).await.unwrap();
        (model, child.as_u64().unwrap())
    });
    assert!(is_running(child));
    // No task runs any more: only the socket that closes says so.
    drop(serving);
    drop(model);
    runtime().block_on(ends(child));
}

#[tokio::test]
async fn a_caller_who_leaves_while_it_is_loaded_does_not_make_it_load_again() {
    let place = Place::new("import time, os\ntime.sleep(0.6)\ndef predict():\n    return os.getpid()\n");
    let loader = place.loader("app:predict");
    for _ in 0..2 {
        let left = tokio::time::timeout(Duration::from_millis(100), loader.load()).await;
        assert!(left.is_err());
    }
    real_sleep(Duration::from_millis(1_500)).await;
    let watch = Stopwatch::start();
    let model = loader.load().await.unwrap();
    assert!(
        watch.elapsed() < Duration::from_millis(300),
        "{:?}",
        watch.elapsed()
    );
    ask(&model, json!({})).await.unwrap();
}

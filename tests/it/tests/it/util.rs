//! The harness: the binary, a temporary project, a server on a free port, and HTTP as a client speaks it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The folder that cargo builds into: this test lies in `<target>/<profile>/deps/`.
fn profile_dir() -> PathBuf {
    let me = std::env::current_exe().unwrap();
    me.parent().and_then(Path::parent).unwrap().to_owned()
}

/// The binary under test; `TIDEMILL_BIN` names another.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TIDEMILL_BIN") {
        return path.into();
    }
    let path = profile_dir().join("tidemill");
    assert!(
        path.is_file(),
        "{} is not there: run `cargo build -p tidemill` first (`make test` does)",
        path.display()
    );
    path
}

/// The repository.
pub fn repository() -> PathBuf {
    manifest_dir().join("../..").canonicalize().unwrap()
}

/// The Python with `tests/clients/requirements.txt` in it: `TIDEMILL_PYTHON`, or made on first use.
pub fn python() -> PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON
        .get_or_init(|| {
            if let Some(path) = std::env::var_os("TIDEMILL_PYTHON") {
                return path.into();
            }
            let made = Command::new(repository().join("scripts/test-venv.sh"))
                .env("CARGO_TARGET_DIR", profile_dir().parent().unwrap())
                .stderr(Stdio::inherit())
                .output()
                .unwrap();
            assert!(made.status.success(), "scripts/test-venv.sh failed, see above");
            Path::new(String::from_utf8(made.stdout).unwrap().trim()).join("bin/python")
        })
        .clone()
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Fails unless the command ended with `code`.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// Fails unless standard error holds all of `parts`.
    #[track_caller]
    pub fn names(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "`{part}` is not named in:\n{}",
                self.stderr
            );
        }
        self
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}):\n{}\nstderr:\n{}", self.stdout, self.stderr))
    }
}

/// Runs `tidemill` in `folder`.
pub fn tidemill(folder: &Path, args: &[&str]) -> Said {
    let output = Command::new(binary())
        .args(args)
        .current_dir(folder)
        .env_remove("TIDEMILL_DATA")
        .env_remove("TIDEMILL_URL")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A project in a temporary folder.
pub struct Project {
    dir: TempDir,
}

impl Project {
    /// An empty folder.
    pub fn empty() -> Self {
        Self {
            dir: tempfile::Builder::new().prefix("tidemill-it-").tempdir().unwrap(),
        }
    }

    /// A small binary project: 240 hourly rows from 2024-01-01, features `x` and `colour`, label `y`, key `id`.
    pub fn small() -> Self {
        let project = Self::empty();
        let mut csv = "id,at,x,colour,y\n".to_owned();
        for i in 0..240_u32 {
            // A label that both features tell something of, and neither all.
            let (x, colour) = (
                f64::from(i * 37 % 100) / 10.0,
                ["red", "green", "blue"][(i % 3) as usize],
            );
            let y = (i * 37 % 100 + i * 13 % 40 > 60) != (colour == "red" && i % 5 == 0);
            let (day, hour) = (i / 24 + 1, i % 24);
            writeln!(csv, "row-{i},2024-01-{day:02}T{hour:02}:00:00Z,{x},{colour},{y}").unwrap();
        }
        project.write("rows.csv", &csv);
        project.write(
            "tidemill.yaml",
            "name: small\n\
             data:\n  source: rows.csv\n  time: at\n  key: id\n\
             label:\n  name: y\n  task: binary\n  horizon: 1d\n\
             features:\n  x: numeric\n  colour: categorical\n\
             training:\n  budget: 0.1\n  iterations: 10\n\
             evaluation:\n  holdout: 2d\n\
             endpoint:\n  default: 0.5\n",
        );
        project
    }

    /// A copy of `examples/flights` with the given months, its spec changed by replacing texts that must be there.
    pub fn flights(months: &[&str], changes: &[(&str, &str)]) -> Self {
        let example = repository().join("examples/flights");
        let project = Self::empty();
        std::fs::create_dir(project.path().join("data")).unwrap();
        for month in months {
            let name = format!("data/{month}.parquet");
            std::fs::copy(example.join(&name), project.path().join(&name)).unwrap();
        }
        std::fs::copy(
            example.join("tidemill.yaml"),
            project.path().join("tidemill.yaml"),
        )
        .unwrap();
        for (old, new) in changes {
            project.change(old, new);
        }
        project
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The spec's path.
    pub fn spec(&self) -> PathBuf {
        self.path().join("tidemill.yaml")
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    /// Replaces a text of the spec, which must stand there once.
    #[track_caller]
    pub fn change(&self, old: &str, new: &str) {
        let text = std::fs::read_to_string(self.spec()).unwrap();
        assert_eq!(text.matches(old).count(), 1, "`{old}` in the spec:\n{text}");
        std::fs::write(self.spec(), text.replacen(old, new, 1)).unwrap();
    }

    /// Runs `tidemill` in the project's folder.
    pub fn run(&self, args: &[&str]) -> Said {
        tidemill(self.path(), args)
    }

    /// Starts a server on a free port.
    pub fn up(&self, args: &[&str]) -> Server {
        Server::start(self.path(), args)
    }
}

/// A server that runs until it is stopped, killed or dropped.
pub struct Server {
    child: Child,
    url: String,
    log: PathBuf,
}

impl Server {
    /// Starts `tidemill up` in `folder` and waits until it says where it listens.
    #[track_caller]
    pub fn start(folder: &Path, args: &[&str]) -> Self {
        Self::try_start(folder, args).unwrap_or_else(|said| panic!("the server did not start: {said}"))
    }

    /// The same, or how the attempt ended.
    pub fn try_start(folder: &Path, args: &[&str]) -> Result<Self, String> {
        let log = tempfile::Builder::new()
            .prefix("tidemill-it-server-")
            .suffix(".log")
            .tempfile()
            .unwrap();
        let (file, log) = log.keep().unwrap();
        let mut command = Command::new(binary());
        command.args(["up", "--json"]).args(args);
        if !args.contains(&"--port") {
            command.args(["--port", "0"]);
        }
        let mut child = command
            .current_dir(folder)
            .env_remove("TIDEMILL_DATA")
            .env_remove("TIDEMILL_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let announced: Value = serde_json::from_str(&line).unwrap_or_default();
        let Some(url) = announced["url"].as_str() else {
            let status = child.wait().unwrap();
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            // Only this attempt's own words were in it.
            let _ = std::fs::remove_file(&log);
            return Err(format!("{status}: {said}"));
        };
        Ok(Self {
            url: url.to_owned(),
            child,
            log,
        })
    }

    /// `http://127.0.0.1:…`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last of what it has said on standard error.
    pub fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Kills it as a power cut would: no handler runs.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it as Ctrl-C or a service manager would.
    pub fn stop(mut self) -> ExitStatus {
        let pid = self.pid().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                begin.elapsed() < Duration::from_mins(1),
                "the server does not stop on SIGTERM: {}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// GET; the answer must be a success.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(path);
        assert!(
            (200..300).contains(&status),
            "GET {path}: {status} {body}\n{}",
            self.said()
        );
        body
    }

    /// The whole event log, page by page.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let after = all.last().map_or(0, |e| e["seq"].as_i64().unwrap());
            let answer = self.get(&format!("/api/v1/events?limit=1000&after={after}"));
            let page = answer["events"].as_array().unwrap();
            if page.is_empty() {
                return all;
            }
            all.extend_from_slice(page);
        }
    }

    /// GET, whatever comes.
    pub fn ask(&self, path: &str) -> (u16, Value) {
        send(http().get(format!("{}{path}", self.url))).unwrap()
    }

    /// POST of JSON; the answer must be a success.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.tell(path, body);
        assert!(
            (200..300).contains(&status),
            "POST {path}: {status} {answer}\n{}",
            self.said()
        );
        answer
    }

    /// POST of JSON, whatever comes.
    pub fn tell(&self, path: &str, body: &Value) -> (u16, Value) {
        self.tell_text(path, "application/json", body.to_string())
    }

    /// POST of any text, whatever comes.
    pub fn tell_text(&self, path: &str, content_type: &str, body: String) -> (u16, Value) {
        let request = http()
            .post(format!("{}{path}", self.url))
            .header("content-type", content_type)
            .body(body);
        send(request).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server at {} said:\n{}", self.url, self.said());
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    })
}

fn http() -> &'static reqwest::Client {
    static HTTP: OnceLock<reqwest::Client> = OnceLock::new();
    HTTP.get_or_init(|| {
        // One for the process; an error says that it is there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_mins(2))
            .build()
            .unwrap()
    })
}

fn send(request: reqwest::RequestBuilder) -> reqwest::Result<(u16, Value)> {
    runtime().block_on(async {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    })
}

/// The data of an output of an Open Inference answer.
#[track_caller]
pub fn output<'a>(answer: &'a Value, name: &str) -> &'a Vec<Value> {
    let outputs = answer["outputs"]
        .as_array()
        .unwrap_or_else(|| panic!("no outputs in {answer}"));
    let found = outputs
        .iter()
        .find(|o| o["name"] == name)
        .unwrap_or_else(|| panic!("no output `{name}` in {answer}"));
    found["data"].as_array().unwrap()
}

/// A list of texts.
#[track_caller]
pub fn texts(values: &Value) -> Vec<String> {
    values
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_str().unwrap().to_owned())
        .collect()
}

/// A port that is free now.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Waits until `done` gives something, or fails saying what was waited for.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, mut done: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(begin.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Repeatable random numbers (SplitMix64); the seed is printed so that a failure can be played again with `TIDEMILL_SEED`.
pub struct Dice(u64);

impl Dice {
    pub fn new() -> Self {
        let seed = std::env::var("TIDEMILL_SEED")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| {
                let now = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap();
                now.as_secs() * 1_000 + u64::from(now.subsec_millis())
            });
        println!("TIDEMILL_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to below `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }
}

/// This crate's folder: asked for when the tests run, since a target folder that several clones share may hold a binary built in another.
fn manifest_dir() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

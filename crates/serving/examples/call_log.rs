//! What recording costs a call of a deployment: `cargo run --release -p tidemill-serving --example call_log -- [CALLS]`.
//!
//! One thread asks a model that takes no time, with one row of ten numbers, as one tensor and as ten columns; with the log and without.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::sync::Arc;

use async_trait::async_trait;
use tidemill_core::clock::{Stopwatch, WallClock};
use tidemill_core::ids::VersionNumber;
use tidemill_core::ports::PortError;
use tidemill_core::servable::{CallContext, Interface, Loader, Payload, Servable, Work};
use tidemill_core::spec::ServingSpec;
use tidemill_core::tensors::Tensor;
use tidemill_serving::{Call, Hosted, HostedVersion, LogOptions, PredictionLog, Router, Server};

#[derive(Debug)]
struct Constant(Interface, Payload);

#[async_trait]
impl Servable for Constant {
    fn interface(&self) -> &Interface {
        &self.0
    }
    fn work(&self) -> Work {
        Work::Light
    }
    async fn call(&self, _: Payload, _: &CallContext) -> Result<Payload, PortError> {
        Ok(self.1.clone())
    }
}

#[derive(Debug)]
struct Loads(Payload);

#[async_trait]
impl Loader for Loads {
    async fn load(&self) -> Result<Arc<dyn Servable>, PortError> {
        Ok(Arc::new(Constant(Interface::default(), self.0.clone())))
    }
}

/// Seconds that this process has had a core, its thread that forces the log to disk included: what others do on the machine is not in it.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let calls: u32 = std::env::args().nth(1).map_or(Ok(200_000), |arg| arg.parse())?;
    let dir = std::env::temp_dir().join(format!("tidemill-call-log-{}", std::process::id()));
    let (log, _) = PredictionLog::open(&dir, LogOptions::default())?;
    let server = Server::new(Arc::new(Router::new()), log, Arc::new(WallClock));
    let answer = Payload::Tensors(vec![Tensor::of_f64("y", vec![1], &[0.5])?]);
    let numbers: Vec<f64> = (0..10).map(f64::from).collect();
    let one = Payload::Tensors(vec![Tensor::of_f64("x", vec![1, 10], &numbers)?]);
    let column = |i: usize| Tensor::of_f64(format!("feature_{i}"), vec![1], &numbers[i..=i]);
    let columns = Payload::Tensors((0..10).map(column).collect::<Result<_, _>>()?);
    for (name, payload) in [("one tensor", one), ("ten columns", columns)] {
        let mut costs = Vec::new();
        for logged in [false, true, false, true] {
            let mut spec = ServingSpec::default();
            spec.log.enabled = logged;
            server.hosting().put(Hosted {
                name: "constant".into(),
                spec: Arc::new(spec),
                versions: vec![HostedVersion {
                    number: VersionNumber(1),
                    loader: Arc::new(Loads(answer.clone())),
                    bundle: None,
                }],
            });
            let before = cpu_seconds();
            for _ in 0..calls {
                let call = Call::new("constant".into(), payload.clone(), Stopwatch::start());
                server.hosting().call(call).await?;
            }
            costs.push((cpu_seconds() - before) * 1e6 / f64::from(calls));
        }
        let (without, with) = (costs[0].min(costs[2]), costs[1].min(costs[3]));
        println!(
            "{name}: {without:.2} us of a core a call without the log, {with:.2} with it: {:.2} us for recording",
            with - without
        );
    }
    let metrics = server.metrics();
    println!(
        "{} calls recorded, {} dropped, {} bytes a call",
        metrics.appended_calls,
        metrics.dropped_calls,
        metrics.appended_bytes / metrics.appended_calls.max(1)
    );
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

//! Answers an ONNX file with one matrix input on a device, and prints what and how fast as JSON: for `scripts/device-check.sh`.
//!
//! Usage: `onnx_device MODEL.onnx DEVICE ROWS WIDTH [ROUNDS]`; the input is a fixed sequence of numbers, the same on every device.

use std::error::Error;
use std::path::Path;

use serde_json::{Value, json};
use tidemill_core::clock::Stopwatch;
use tidemill_core::servable::{CallContext, Payload, Servable as _};
use tidemill_core::spec::Device;
use tidemill_core::tensors::Tensor;
use tidemill_models::OnnxModel;

#[expect(clippy::print_stdout, reason = "its answer")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, device, rows, width, more @ ..] = arguments.as_slice() else {
        return Err("usage: onnx_device MODEL.onnx DEVICE ROWS WIDTH [ROUNDS]".into());
    };
    let (rows, width): (usize, usize) = (rows.parse()?, width.parse()?);
    let rounds: u32 = more.first().map_or(Ok(50), |rounds| rounds.parse())?;
    let path = Path::new(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("no file")?;
    let watch = Stopwatch::start();
    let device: Device = device.parse()?;
    let model = OnnxModel::load_from(folder.unwrap_or(Path::new(".")), name, device)?;
    let load_ms = watch.elapsed().as_secs_f64() * 1e3;
    let input = model.interface().inputs.first().ok_or("no input")?.name.clone();
    // Low discrepancy and no library: the same everywhere.
    let numbers = (0..rows * width).map(|i| ((i as f64 * 0.618_033_988_749_895).fract() * 4.0 - 2.0) as f32);
    let x = Tensor::of_f32(input, vec![rows, width], &numbers.collect::<Vec<f32>>())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let ask = || runtime.block_on(model.call(Payload::Tensors(vec![x.clone()]), &CallContext::default()));
    let answer = ask()?;
    let watch = Stopwatch::start();
    for _ in 0..rounds {
        ask()?;
    }
    let each_ms = watch.elapsed().as_secs_f64() * 1e3 / f64::from(rounds.max(1));
    let Payload::Tensors(tensors) = answer else {
        return Err("the model answered no tensors".into());
    };
    let outputs = tensors
        .iter()
        .map(|tensor| (tensor.name.clone(), json!(tensor.to_f64())));
    let outputs: serde_json::Map<String, Value> = outputs.collect();
    let told = json!({
        "asked": device, "device": model.device(), "rows": rows, "load_ms": load_ms, "each_ms": each_ms, "outputs": outputs,
    });
    println!("{told}");
    Ok(())
}

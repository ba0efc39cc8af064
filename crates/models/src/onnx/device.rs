//! Where a model runs, and the line before each GPU.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use ort::ep::{CUDA, ExecutionProvider as _};
use tidemill_core::spec::Device;

use super::{OnnxError, library};

/// A place to run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The processor.
    Cpu,
    /// The GPU of this number.
    Cuda(u32),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Where to try, in this order. Without a GPU `auto` looks no further, so that nothing is other than it was.
pub(super) fn places(wanted: Device) -> Result<Vec<Place>, OnnxError> {
    match wanted {
        Device::Cpu => Ok(vec![Place::Cpu]),
        Device::Cuda(number) => {
            ready().map_err(|why| OnnxError::NoDevice(format!("`{wanted}`: {why}")))?;
            Ok(vec![Place::Cuda(number)])
        }
        Device::Auto => Ok(match ready() {
            Ok(()) => vec![Place::Cuda(0), Place::Cpu],
            Err(why) => {
                tracing::debug!(%why, "onnx models run on the processor");
                vec![Place::Cpu]
            }
        }),
    }
}

/// Whether there is a GPU, and an ONNX Runtime that was built for one. Whether they come together shows when a model is loaded.
fn ready() -> Result<(), String> {
    if !sees_gpu(
        std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(),
        Path::new("/dev"),
    ) {
        return Err("this process sees no NVIDIA GPU: `nvidia-smi -L` lists those of the machine, and CUDA_VISIBLE_DEVICES hides some".to_owned());
    }
    library::environment().map_err(|error| error.to_string())?;
    match CUDA::is_available() {
        Ok(true) => Ok(()),
        Ok(false) => Err(
            "this ONNX Runtime was built without CUDA: `pip install onnxruntime-gpu`, and name its library in TIDEMILL_ONNXRUNTIME".to_owned(),
        ),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether the driver shows a GPU that is not hidden.
fn sees_gpu(visible: Option<&str>, devices: &Path) -> bool {
    if visible.is_some_and(|visible| matches!(visible.trim(), "" | "-1" | "NoDevFiles")) {
        return false;
    }
    let entries = std::fs::read_dir(devices).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("nvidia"));
        // Under Windows' Linux the driver shows all GPUs as this one.
        number.is_some_and(|number| number.parse::<u32>().is_ok()) || name == "dxg"
    })
}

/// The line before a GPU: whoever came first runs first, whichever model it is, and one at a time.
#[derive(Debug, Default)]
pub(super) struct Line {
    numbers: Mutex<Numbers>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct Numbers {
    given: u64,
    called: u64,
}

impl Line {
    /// The line of a GPU, which all models on it share.
    pub fn before(gpu: u32) -> Arc<Self> {
        static LINES: Mutex<BTreeMap<u32, Arc<Line>>> = Mutex::new(BTreeMap::new());
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lines.entry(gpu).or_default())
    }

    /// Waits for its turn, which ends with what is returned.
    pub fn wait(&self) -> Turn<'_> {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let own = numbers.given;
        numbers.given += 1;
        while numbers.called != own {
            numbers = self.called.wait(numbers).unwrap_or_else(PoisonError::into_inner);
        }
        Turn(self)
    }
}

/// A turn at a GPU.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Line);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut numbers = self.0.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.called += 1;
        drop(numbers);
        self.0.called.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_seen_by_its_device_file_unless_it_is_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let sees = |visible| sees_gpu(visible, dir.path());
        std::fs::write(dir.path().join("nvidiactl"), "").unwrap();
        assert!(!sees(None), "the driver alone is no GPU");
        std::fs::write(dir.path().join("nvidia1"), "").unwrap();
        assert!(sees(None) && sees(Some("1")));
        assert!(!sees(Some("")) && !sees(Some("-1")));
        assert!(!sees_gpu(None, Path::new("/nowhere")));
    }

    #[test]
    fn a_line_is_served_one_at_a_time_in_the_order_of_coming() {
        let line = Line::before(1_000);
        assert!(Arc::ptr_eq(&line, &Line::before(1_000)));
        let order = Arc::new(Mutex::new(Vec::new()));
        let first = line.wait();
        let waiting: Vec<_> = (0..4)
            .map(|number| {
                let (own, order) = (Arc::clone(&line), Arc::clone(&order));
                let thread = std::thread::spawn(move || {
                    let _turn = own.wait();
                    order.lock().unwrap().push(number);
                });
                // Each has taken its number before the next comes.
                while line.numbers.lock().unwrap().given < number + 2 {
                    std::thread::yield_now();
                }
                thread
            })
            .collect();
        assert!(order.lock().unwrap().is_empty());
        drop(first);
        for thread in waiting {
            thread.join().unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
    }
}

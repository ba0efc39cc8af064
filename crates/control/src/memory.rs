//! What the process holds in memory, from the operating system.

/// Resident memory now and at its peak, MiB; zeros where the system does not say.
pub(crate) fn resident_mb() -> (f64, f64) {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return (0.0, 0.0);
    };
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| {
                rest.trim_start_matches(':')
                    .trim()
                    .trim_end_matches(" kB")
                    .trim()
                    .parse::<f64>()
                    .ok()
            })
            .map_or(0.0, |kib| kib / 1_024.0)
    };
    (field("VmRSS"), field("VmHWM"))
}

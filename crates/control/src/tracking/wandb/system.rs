//! System metrics under MLflow's names, where it has one for the same thing.

/// MLflow's name of a W&B system metric, and by what to multiply its value.
pub fn renamed(name: &str) -> (String, f64) {
    const GB: f64 = 1024.0;
    const BYTE: f64 = 1.0 / (1024.0 * 1024.0);
    let bare = name.strip_prefix("system.").unwrap_or(name);
    let (known, factor) = match bare {
        "cpu" => ("cpu_utilization_percentage", 1.0),
        "memory_percent" => ("system_memory_usage_percentage", 1.0),
        "memory.used" | "memory_used" => ("system_memory_usage_megabytes", 1.0),
        "disk./.usagePercent" | "disk.\\.usagePercent" => ("disk_usage_percentage", 1.0),
        "disk./.usageGB" | "disk.\\.usageGB" => ("disk_usage_megabytes", GB),
        "network.recv" => ("network_receive_megabytes", BYTE),
        "network.sent" => ("network_transmit_megabytes", BYTE),
        _ => return gpu(bare).unwrap_or_else(|| (format!("system/{bare}"), 1.0)),
    };
    (format!("system/{known}"), factor)
}

fn gpu(bare: &str) -> Option<(String, f64)> {
    let (index, what) = bare.strip_prefix("gpu.")?.split_once('.')?;
    index.parse::<u32>().ok()?;
    let (known, factor) = match what {
        "gpu" => ("utilization_percentage", 1.0),
        "memoryAllocated" => ("memory_usage_percentage", 1.0),
        "memoryAllocatedBytes" => ("memory_usage_megabytes", 1.0 / (1024.0 * 1024.0)),
        "powerWatts" => ("power_usage_watts", 1.0),
        "powerPercent" => ("power_usage_percentage", 1.0),
        _ => return None,
    };
    Some((format!("system/gpu_{index}_{known}"), factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_metrics_take_mlflows_names_where_it_has_one() {
        assert_eq!(renamed("system.cpu").0, "system/cpu_utilization_percentage");
        assert_eq!(
            renamed("system.gpu.1.gpu").0,
            "system/gpu_1_utilization_percentage"
        );
        assert_eq!(
            renamed("system.disk./.usageGB"),
            ("system/disk_usage_megabytes".to_owned(), 1024.0)
        );
        assert_eq!(renamed("system.proc.cpu.threads").0, "system/proc.cpu.threads");
        assert_eq!(renamed("system.gpu.0.temp").0, "system/gpu.0.temp");
    }
}

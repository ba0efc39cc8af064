//! Names for runs that nobody named, such as `swift-heron-412`.

const FIRST: [&str; 64] = [
    "amber", "ample", "arctic", "azure", "balmy", "basic", "bright", "brisk", "broad", "calm", "clear",
    "clever", "cosmic", "crisp", "daring", "deft", "dusky", "eager", "early", "earnest", "fair", "fertile",
    "fine", "firm", "fleet", "fresh", "gentle", "glad", "golden", "grand", "green", "hardy", "humble",
    "ideal", "jolly", "keen", "lively", "lucid", "merry", "mild", "misty", "modest", "neat", "noble",
    "olive", "patient", "plain", "prime", "proud", "quick", "quiet", "rapid", "ready", "rosy", "sharp",
    "silver", "sleek", "smart", "steady", "sunny", "swift", "tidy", "vivid", "warm",
];

const SECOND: [&str; 64] = [
    "anchor", "badger", "bay", "beacon", "beam", "birch", "bison", "bloom", "breeze", "bridge", "brook",
    "canal", "cedar", "cliff", "cloud", "coast", "comet", "coral", "cove", "crest", "delta", "dune", "eddy",
    "elm", "falcon", "fern", "field", "finch", "fjord", "gale", "glade", "grove", "gull", "harbor", "heron",
    "hill", "inlet", "island", "kelp", "lagoon", "lake", "lark", "maple", "marsh", "meadow", "mill", "moor",
    "oak", "orca", "osprey", "otter", "pebble", "pine", "puffin", "reef", "ridge", "river", "seal", "shoal",
    "shore", "spring", "tern", "tide", "wave",
];

/// A name made of an id's random digits.
pub(super) fn of(id: &str) -> String {
    let tail = id.get(id.len().saturating_sub(12)..).unwrap_or_default();
    let bits = u64::from_str_radix(tail, 16).unwrap_or(0);
    let first = FIRST[(bits & 63) as usize];
    let second = SECOND[((bits >> 6) & 63) as usize];
    format!("{first}-{second}-{}", (bits >> 12) % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_three_parts_and_at_most_twenty_characters() {
        for id in [
            "0192f0c1a3b47def8a1b2c3d4e5f6071",
            "0",
            "ffffffffffffffffffffffffffffffff",
        ] {
            let name = of(id);
            assert!(name.len() <= 20, "{name}");
            assert_eq!(name.split('-').count(), 3, "{name}");
        }
    }
}

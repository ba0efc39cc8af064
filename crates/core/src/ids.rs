//! Newtypes for ids, so that no bare string crosses a crate border.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps the text.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }
    };
}

text_id!(
    /// A registered model's name.
    ModelName
);
text_id!(
    /// An endpoint's name.
    EndpointName
);
text_id!(
    /// A run: 32 hexadecimal digits, as MLflow writes them.
    RunId
);
text_id!(
    /// A served prediction.
    PredictionId
);
text_id!(
    /// A rollout.
    RolloutId
);
text_id!(
    /// An alert.
    AlertId
);
text_id!(
    /// A decision record.
    DecisionId
);

/// The number of a model version, from 1; 0 stands for the endpoint's default answer, which no model gave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionNumber(pub u32);

impl VersionNumber {
    /// The endpoint's default answer.
    pub const DEFAULT: Self = Self(0);
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A fresh random id whose first digits carry `now`, so that ids sort by time: UUID v7 without dashes, 32 hexadecimal digits.
pub fn fresh(now: Timestamp) -> String {
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    let time = uuid::Timestamp::from_unix(
        uuid::NoContext,
        millis / 1_000,
        ((millis % 1_000) * 1_000_000) as u32,
    );
    uuid::Uuid::new_v7(time).simple().to_string()
}

/// An id that is a function of its parts and `now` (time first, so that ids sort): 32 hexadecimal digits. Asking again with
/// the same parts and time gives the same id, which is what makes a retried request safe.
pub fn derived<'a>(now: Timestamp, parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    let hash = crate::digest::Digest::of_parts(parts);
    let tail: String = hash.to_string().chars().take(20).collect();
    format!("{:012x}{tail}", millis & 0xffff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_ids_sort_by_time_and_derived_ids_repeat() {
        let early = Timestamp::from_micros(1_000_000_000_000_000);
        let late = Timestamp::from_micros(1_000_000_001_000_000);
        assert!(fresh(early) < fresh(late));
        assert_ne!(fresh(early), fresh(early));
        assert_eq!(
            derived(early, [b"a".as_slice()]),
            derived(early, [b"a".as_slice()])
        );
        assert_eq!(derived(early, [b"a".as_slice()]).len(), 32);
    }
}

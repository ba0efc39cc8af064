//! Where messages may go. A server that posts wherever a client says can be made to reach what only it can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::Url;

use crate::tracking::{Result, Tracking, TrackingError};

impl Tracking {
    /// Whether messages may go to a URL: its scheme, and every address that its host has now. Those addresses.
    pub(in crate::tracking) async fn check_url(&self, url: &str) -> Result<Vec<SocketAddr>> {
        let options = &self.options().webhooks;
        if url.trim().is_empty() {
            return Err(TrackingError::invalid(format!(
                "Webhook URL cannot be empty or just whitespace: '{url}'"
            )));
        }
        let scheme = match url.split_once(':') {
            Some((scheme, _))
                if scheme
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) =>
            {
                scheme.to_ascii_lowercase()
            }
            _ => String::new(),
        };
        if !options.allowed_schemes.contains(&scheme) {
            return Err(TrackingError::invalid(format!(
                "Invalid webhook URL scheme: '{scheme}'. Allowed schemes are: {}.",
                options.allowed_schemes.join(", ")
            )));
        }
        let hostless = || TrackingError::invalid(format!("Webhook URL must include a hostname: '{url}'"));
        let parsed = match Url::parse(url) {
            Ok(parsed) => parsed,
            Err(url::ParseError::EmptyHost) => return Err(hostless()),
            Err(error) => {
                return Err(TrackingError::invalid(format!(
                    "Invalid webhook URL '{url}': {error}"
                )));
            }
        };
        let host = parsed
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or_else(hostless)?;
        let host = host.trim_matches(['[', ']']);
        let port = parsed.port_or_known_default().unwrap_or(443);
        let found = match tokio::net::lookup_host((host, port)).await {
            Ok(found) => found.collect::<Vec<_>>(),
            // Whoever allows inner addresses may also create a webhook for a host that comes later.
            Err(_) if options.allow_private_ips => return Ok(Vec::new()),
            Err(error) => {
                return Err(TrackingError::invalid(format!(
                    "Cannot resolve webhook URL hostname '{host}': {error}"
                )));
            }
        };
        if !options.allow_private_ips
            && let Some(inner) = found.iter().find(|address| !is_public(address.ip()))
        {
            return Err(TrackingError::invalid(format!(
                "Webhook URL must not resolve to a non-public IP address. '{host}' resolves to {}.",
                inner.ip()
            )));
        }
        Ok(found)
    }
}

/// Whether an address is one of the public internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// IANA's registry of special addresses, less those that are global.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0
        || a == 10
        || a == 127
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113)
        || a >= 224;
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        // IPv4 in IPv6: mapped, translated (NAT64), 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Only 2000::/3 is given out, and of that not Teredo, benchmarking, ORCHID, documentation.
        [0x2001, second, ..] if second < 0x0200 || second == 0x0db8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        [first, ..] => (first & 0xe000) == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_inside_are_told_from_those_outside() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "ff02::1",
            "2001::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "93.184.216.34",
            "8.8.8.8",
            "172.32.0.1",
            "2606:2800:220:1::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(outside.parse().unwrap()), "{outside}");
        }
    }
}

//! Which portal an initiator is sent on to by a gateway that serves nothing itself, so that hosts need to know one address
//! only (RFC 7143 section 6.3.3.1).

use std::net::SocketAddr;

use admin_api::iscsi::Portal;

/// A portal for an initiator that came in at this address. It is the same one as long as it is there, whichever gateway
/// chooses; different initiators and targets are spread over all.
pub(super) fn choose(portals: &[Portal], own: SocketAddr, initiator: &str, target: &str) -> Option<String> {
    let reachable = portals.iter().filter_map(|portal| {
        let address: SocketAddr = portal.address.parse().ok()?;
        (address.is_ipv4() == own.is_ipv4() && address != own).then_some(portal.address.as_str())
    });
    let chosen = reachable.max_by_key(|address| weight(&[initiator, target, address]));
    chosen.map(str::to_owned)
}

/// A number that is drawn anew for each address, and by each process the same.
fn weight(words: &[&str]) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, words.join("\n").as_bytes());
    let first = digest.as_ref().first_chunk();
    first.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    //! Whoever is sent on comes to the same place, and not all to one.
    use std::collections::BTreeSet;

    use super::*;

    fn portals(addresses: &[&str]) -> Vec<Portal> {
        let portal = |address: &&str| Portal {
            node: "n".to_owned(),
            address: (*address).to_owned(),
            group: 1,
        };
        addresses.iter().map(portal).collect()
    }

    #[test]
    fn an_initiator_stays_where_it_is_when_another_portal_goes() {
        let all = [
            "192.0.2.1:3260",
            "192.0.2.2:3260",
            "192.0.2.3:3260",
            "[2001:db8::1]:3260",
        ];
        let own = "192.0.2.9:3260".parse().unwrap();
        let mut seen = BTreeSet::new();
        for number in 0..30 {
            let initiator = format!("iqn.2026-11.org.example:{number}");
            let chosen = choose(&portals(&all), own, &initiator, "iqn.2026-11.org.example:t").unwrap();
            let without: Vec<&str> = all.into_iter().filter(|address| *address != chosen).collect();
            let left: Vec<&str> = all
                .into_iter()
                .filter(|address| *address == chosen || *address == without[0])
                .collect();
            let again = choose(&portals(&left), own, &initiator, "iqn.2026-11.org.example:t");
            assert_eq!(again.as_deref(), Some(chosen.as_str()));
            let other = choose(&portals(&without), own, &initiator, "iqn.2026-11.org.example:t");
            assert_ne!(other, Some(chosen.clone()));
            seen.insert(chosen);
        }
        assert_eq!(seen.len(), 3, "all that an IPv4 host can reach: {seen:?}");
    }

    #[test]
    fn nobody_is_sent_to_where_he_came_from_or_cannot_go() {
        let own = "192.0.2.1:3260".parse().unwrap();
        let portals = portals(&["192.0.2.1:3260", "[2001:db8::1]:3260"]);
        assert_eq!(choose(&portals, own, "iqn.a", "iqn.b"), None);
    }
}

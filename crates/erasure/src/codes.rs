//! The arithmetic of all profiles that are met, made once for each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::profile::Profile;
use protocol::rows::{RowCode, RowCodes};

use super::Code;

/// Makes what is asked for and keeps it: as many as there are profiles, a few hundred at most.
#[derive(Debug, Default)]
pub struct Codes(Mutex<BTreeMap<Profile, Arc<Code>>>);

impl RowCodes for Codes {
    fn code(&self, profile: Profile) -> Option<Arc<dyn RowCode>> {
        // Nothing panics while it is held.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(code) = known.get(&profile) {
            return Some(code.clone());
        }
        let code = Arc::new(Code::new(profile).ok()?);
        known.insert(profile, code.clone());
        Some(code)
    }
}

#[cfg(test)]
mod tests {
    //! Asked twice, it is made once.
    use super::*;

    #[test]
    fn each_profile_has_its_code_and_keeps_it() {
        let codes = Codes::default();
        let profile = Profile::new(4, 2).unwrap();
        let (first, second) = (codes.code(profile).unwrap(), codes.code(profile).unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        let data = vec![vec![1_u8; 64]; 4];
        let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        assert_eq!(first.encode(&data).unwrap().len(), 2);
        let other = codes.code(Profile::new(2, 1).unwrap()).unwrap();
        assert_eq!(other.encode(&data[..2]).unwrap().len(), 1);
    }
}

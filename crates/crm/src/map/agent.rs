//! From a CRM's user to Talkdesk's agent.

use contacts::contact::Agent;

use super::{LONGEST_ID, LONGEST_TEXT, Tally, text};

/// All three fields are mandatory (Talkdesk agent sync, response reference): a user without a usable e-mail address is no
/// agent, one without a name is called by the local part of the address.
pub(crate) fn agent(id: String, name: Option<String>, email: Option<String>, tally: &mut Tally) -> Option<Agent> {
    if id.chars().count() > LONGEST_ID {
        tally.dropped("id_too_long");
        return None;
    }
    let Some(email) = email.filter(|email| !email.trim().is_empty()) else {
        tally.dropped("no_email");
        return None;
    };
    let email = text::emails(vec![email], tally).pop()?;
    let name = text::clipped(name, LONGEST_TEXT, tally).unwrap_or_else(|| {
        tally.repaired("name_filled");
        let (local, _) = email.split_once('@').unwrap_or((&email, ""));
        local.to_owned()
    });
    Some(Agent { id, name, email })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mapped(name: Option<&str>, email: Option<&str>) -> (Option<Agent>, Tally) {
        let mut tally = Tally::default();
        let agent = agent(
            "7".into(),
            name.map(str::to_owned),
            email.map(str::to_owned),
            &mut tally,
        );
        (agent, tally)
    }

    #[test]
    fn names_and_addresses_are_trimmed_and_a_missing_name_is_filled() {
        let (agent, tally) = mapped(Some("  Rosa\tLindqvist "), Some(" Rosa@Demo.test "));
        let agent = agent.unwrap();
        assert_eq!(
            (agent.name.as_str(), agent.email.as_str()),
            ("Rosa Lindqvist", "Rosa@Demo.test")
        );
        assert_eq!(agent.email_key(), "rosa@demo.test");
        assert!(tally.dropped.is_empty() && tally.repairs.is_empty());
        for name in [None, Some(""), Some(" \n ")] {
            let (agent, tally) = mapped(name, Some("tom.okafor@demo.test"));
            assert_eq!(agent.unwrap().name, "tom.okafor");
            assert_eq!(tally.repairs["name_filled"], 1);
        }
    }

    #[test]
    fn who_has_no_address_is_no_agent() {
        for (email, reason) in [
            (None, "no_email"),
            (Some(""), "no_email"),
            (Some("  "), "no_email"),
            (Some("admin"), "email_invalid"),
            (Some("@demo.test"), "email_invalid"),
            (Some("a b@demo.test"), "email_invalid"),
        ] {
            let (agent, tally) = mapped(Some("Somebody"), email);
            assert_eq!((agent, tally.dropped.get(reason)), (None, Some(&1)), "{email:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_crm_says_an_agent_is_whole(id in ".{1,300}", name in prop::option::of(".{0,300}"), email in prop::option::of(".{0,40}@?.{0,300}")) {
            let mut tally = Tally::default();
            match agent(id.clone(), name, email, &mut tally) {
                Some(agent) => {
                    prop_assert_eq!(&agent.id, &id);
                    prop_assert!(!agent.name.is_empty() && agent.name.chars().count() <= LONGEST_TEXT);
                    prop_assert!(agent.email.contains('@') && agent.email.trim() == agent.email);
                    prop_assert!(!agent.email.contains(char::is_control) && !agent.to_json().contains(&b'\n'));
                }
                None => prop_assert_eq!(tally.dropped.values().sum::<u32>(), 1),
            }
        }
    }
}

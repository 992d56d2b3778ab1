//! Integrations of the kind `linking`, and their dealers.

use super::*;

const INTEGRATION: &str = "\
[integrations.dealers]
kind = \"linking\"
connector = \"web1on1\"
dms = \"demo\"
dms_url = \"https://dms.example/customer/{id}/\"
";
const DEALER: &str = "\
[dealers.oslo]
integration = \"dealers\"
organization = \"5c13\"
secrets = { first = \"canary-dealer-secret\" }
dms = { token = \"canary-dms-token\" }
";

#[test]
fn a_dealer_is_read_from_file_and_variables_and_shown_masked() {
    let source = Source::text(format!("{INTEGRATION}{DEALER}"))
        .with_var("SNAPBRIDGE_DEALERS__OSLO__SECRETS__SECOND", "canary-second-secret")
        .with_var("SNAPBRIDGE_DEALERS__OSLO__REGION", "NO")
        .with_var("SNAPBRIDGE_INTEGRATIONS__DEALERS__AUTH", "hmac");
    let settings = load(&source);
    let oslo = &settings.dealers["oslo"];
    assert_eq!((oslo.secrets.len(), oslo.region.as_deref()), (2, Some("NO")));
    assert_eq!(oslo.secrets["second"].expose_secret(), "canary-second-secret");
    assert_eq!(settings.integrations["dealers"].auth, UpdateAuth::Hmac);
    let masked = settings.masked();
    assert!(
        masked.contains("[dealers.oslo.secrets]") && !masked.contains("canary"),
        "{masked}"
    );
}

#[test]
fn what_cannot_run_is_refused_with_its_place() {
    for (integration, dealer, expected) in [
        ("", DEALER, "names the integration \"dealers\", which is not there"),
        (
            "[integrations.dealers]\nconnector = \"odoo\"\n",
            DEALER,
            "which is not of the kind \"linking\"",
        ),
        (
            INTEGRATION,
            "[dealers.oslo]\nintegration = \"dealers\"\nsecrets = { a = \"0123456789abcdef\" }\n",
            "needs an `organization`",
        ),
        (
            INTEGRATION,
            "[dealers.oslo]\nintegration = \"dealers\"\norganization = \"5c13\"\n",
            "needs `secrets`",
        ),
        (
            INTEGRATION,
            "[dealers.oslo]\nintegration = \"dealers\"\norganization = \"5c13\"\nsecrets = { a = \"short\" }\n",
            "must have 16 characters or more",
        ),
        (
            INTEGRATION,
            "[dealers.Oslo]\nintegration = \"dealers\"\norganization = \"5c13\"\nsecrets = { a = \"0123456789abcdef\" }\n",
            "`Oslo` cannot be the name of a dealer",
        ),
        (
            "[integrations.dealers]\nkind = \"linking\"\nconnector = \"web1on1\"\ndms = \"demo\"\n",
            DEALER,
            "has no `dms_url`",
        ),
    ] {
        let found = problem(&Source::text(format!("{integration}{dealer}")));
        assert!(found.contains(expected), "{expected}\n  {found}");
        assert!(!found.contains("canary"), "{found}");
    }
    let twice = DEALER.replace("oslo", "bergen");
    let found = problem(&Source::text(format!("{INTEGRATION}{DEALER}{twice}")));
    assert!(
        found.contains("`dealers.oslo.organization` is the same as that of `dealers.bergen`"),
        "{found}"
    );
}

#[test]
fn only_one_integration_can_be_open_to_all() {
    let open = format!("{INTEGRATION}auth = \"none\"\n");
    let second = open.replace("integrations.dealers", "integrations.others");
    // With auth = "none" no dealer needs a secret.
    let dealer = "[dealers.oslo]\nintegration = \"dealers\"\norganization = \"5c13\"\n";
    load(&Source::text(format!("{open}{dealer}")));
    let found = problem(&Source::text(format!("{open}{second}")));
    assert!(found.contains("only one can have the root paths"), "{found}");
}

use super::*;

fn refused(text: &str) -> String {
    Settings::parse("enforcer.toml", text).expect_err("must be refused").to_string()
}

#[test]
fn an_empty_file_gives_the_defaults() {
    assert_eq!(Settings::parse("x", "").expect("valid"), Settings::default());
    assert_eq!(Settings::default().home_root(), "/agents.slice");
}

#[test]
fn the_shipped_file_is_valid_and_says_the_defaults() {
    let text = include_str!("../../../dist/etc/enforcer/enforcer.toml");
    assert_eq!(Settings::parse("shipped", text).expect("valid"), Settings::default());
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let message = refused("[launch]\nno_new_privs = true\n");
    assert!(message.contains("line 2") && message.contains("no_new_privs"), "{message}");
}

#[test]
fn a_root_must_be_an_absolute_plain_cgroup_path() {
    for path in ["agents.slice", "/", "/a//b", "/a/../b", "/a/"] {
        let message = refused(&format!("[agents]\nroots = [{{ path = {path:?} }}]"));
        assert!(message.contains("agents.roots"), "{message}");
    }
}

#[test]
fn roots_must_not_contain_each_other_nor_all_be_shared() {
    assert!(refused("[agents]\nroots = [{path='/a'},{path='/a/b'}]").contains("contain each other"));
    assert!(refused("[agents]\nroots = [{path='/a'},{path='/a'}]").contains("contain each other"));
    assert!(refused("[agents]\nroots = [{path='/a',shared=true}]").contains("not be shared"));
    assert!(refused("[agents]\nroots = []").contains("not be shared"));
    assert!(Settings::parse("x", "[agents]\nroots = [{path='/a'},{path='/ab'}]").is_ok());
}

#[test]
fn more_roots_than_the_kernel_holds_are_refused() {
    let text = "[agents]\nroots=[{path='/a'},{path='/b'},{path='/c'},{path='/d'},{path='/e'}]";
    assert!(refused(text).contains("at most 4"));
}

#[test]
fn relative_paths_and_odd_sizes_are_refused() {
    assert!(refused("[paths]\nstate = 'var'").contains("paths.state"));
    assert!(refused("[launch]\npath = '/bin:.'").contains("launch.path"));
    assert!(refused("[launch]\nmemory_max = '2 G'").contains("memory_max"));
    assert!(refused("[launch]\nmemory_max = 'G'").contains("memory_max"));
    assert!(refused("[audit]\nmax_bytes = 1000").contains("audit.max_bytes"));
    assert!(refused("[launch]\npids_max = 0").contains("pids_max"));
    for arena in ["0", "8", "48", "2048"] {
        let said = refused(&format!("[daemon]\narena_mib = {arena}"));
        assert!(said.contains("daemon.arena_mib") && said.contains("from 16 to 1024"), "{said}");
    }
    let small = Settings::parse("x", "[daemon]\narena_mib = 16").expect("a power of two");
    assert_eq!(small.daemon.arena(), 16 << 20);
    assert!(Settings::parse("x", "[launch]\nmemory_max='2G'\npids_max=512").is_ok());
}

#[test]
fn more_trust_must_not_be_stricter_nor_more_at_stake_more_lenient() {
    let row = |level: &str, low: &str, medium: &str, high: &str| {
        format!("[trust.{level}]\nlow = '{low}'\nmedium = '{medium}'\nhigh = '{high}'\n")
    };
    let strict = row("probation", "allow", "hold", "deny") + &row("supervised", "allow", "hold", "hold");
    let settings = Settings::parse("x", &strict).expect("valid");
    assert_eq!(settings.trust.probation.high, crate::trust::table::Becomes::Deny);
    for (text, words) in [
        (row("supervised", "allow", "deny", "deny"), "supervised.medium is `deny`, but `hold` at probation"),
        (row("autonomous", "hold", "hold", "hold"), "autonomous.low is `hold`, but `allow` at trusted"),
        (row("trusted", "hold", "allow", "hold"), "trusted: tier low is `hold`, but tier medium"),
        (row("probation", "allow", "hold", "hold") + "critical = 'hold'\n", "unknown field `critical`"),
        ("[trust.probation]\nlow = 'allow'\nmedium = 'hold'\n".to_owned(), "missing field `high`"),
        (row("intern", "allow", "hold", "hold"), "unknown field `intern`"),
        (row("probation", "allow", "ask", "hold"), "unknown variant `ask`"),
    ] {
        let message = refused(&text);
        assert!(message.starts_with("enforcer.toml: ") && message.contains(words), "{message}");
    }
}

#[test]
fn metrics_stay_on_this_host() {
    for address in ["0.0.0.0:9469", "10.0.0.1:9469", "[::]:9469"] {
        let message = refused(&format!("[metrics]\naddress = '{address}'"));
        assert!(message.contains("metrics.address"), "{message}");
    }
    assert!(Settings::parse("x", "[metrics]\naddress = '[::1]:9469'\nsocket = ''").is_ok());
    assert!(refused("[metrics]\nsocket = 'run/x'").contains("metrics.socket"));
}

#[test]
fn a_file_that_was_named_must_exist() {
    let missing = Settings::load(Some(Path::new("/nonexistent/enforcer.toml")));
    assert!(matches!(missing, Err(SettingsError::Read { .. })));
}

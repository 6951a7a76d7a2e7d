//! Words of podman and docker that this command does not have, and what does the same.

/// What to write instead of an option that is not known here.
pub(crate) fn instead(option: &str) -> String {
    let option = option.split('=').next().unwrap_or_default();
    let words = match option {
        "--privileged" => {
            "a container with all that the host has is none; give what it needs, by --cap-add, --device and --security-opt"
        }
        "--restart" => "nothing stays that could start it again; a systemd unit with this command in it does",
        "--volumes-from" | "--volume-driver" => {
            "volumes by name are not kept here; name the host's directory, by --volume"
        }
        "--link" | "--ip" | "--ip6" | "--mac-address" | "--network-alias" => {
            "each container is alone in its network; --net pasta with --publish leads to it"
        }
        "--publish-all" | "-P" => "name each port, by --publish HOSTPORT:PORT",
        "--gpus" => "name the devices, by --device",
        "--log-driver" | "--log-opt" => {
            "what a detached container prints lies in `containers/NAME/output` of the store"
        }
        "--pid" | "--ipc" | "--uts" | "--userns" | "--cgroupns" | "--cgroup-parent" | "--group-add" => {
            "`coracle unpack` writes a config.json that can be changed, and `coracle run` runs it"
        }
        name if name.starts_with("--health-") || name == "--no-healthcheck" => {
            "no health checks are made; `coracle exec` runs one"
        }
        _ => "`coracle run-image --help` lists what there is",
    };
    words.to_owned()
}

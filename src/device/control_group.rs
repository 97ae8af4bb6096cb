//! Where Linux keeps the limits of a process's control groups.

use std::path::{Path, PathBuf};

/// The files that may limit a process with this `/proc/self/cgroup`, below the root folder: of its groups of either version, up
/// to the root. `controller` is that of version 1, whose file is `files[0]`; `files[1]` is version 2's. (In a container the
/// path may be the host's; the root is then the container's own group.)
pub fn limit_files(groups: &str, controller: &str, files: [&str; 2]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => (PathBuf::from("sys/fs/cgroup"), files[1]),
            _ if controllers.split(',').any(|name| name == controller) => {
                (Path::new("sys/fs/cgroup").join(controller), files[0])
            }
            _ => continue,
        };
        found.extend(Path::new(group.trim_start_matches('/')).ancestors().map(|group| root.join(group).join(file)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_looked_for_in_every_group_up_to_the_root() {
        let files = limit_files("4:cpu,memory:/a\n3:pids:/x\n0::/b/c\nnonsense\n", "memory", ["old", "new"]);
        let names: Vec<&str> = files.iter().filter_map(|path| path.to_str()).collect();
        let expected = [
            "sys/fs/cgroup/memory/a/old",
            "sys/fs/cgroup/memory/old",
            "sys/fs/cgroup/b/c/new",
            "sys/fs/cgroup/b/new",
            "sys/fs/cgroup/new",
        ];
        assert_eq!(names, expected);
    }
}

//! Lines of a haproxy.cfg as they are written.

#[derive(Default)]
pub(super) struct ConfigLines {
    pub text: String,
    pub count: usize,
}

impl ConfigLines {
    pub(super) fn head(&mut self, line: &str) {
        if self.count > 0 {
            self.text.push('\n');
            self.count += 1;
        }
        self.push(line);
    }

    pub(super) fn line(&mut self, line: impl AsRef<str>) {
        self.push(&format!("    {}", line.as_ref()));
    }

    pub(super) fn push(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.count += 1;
    }
}

// WebKitGTK gives the POSIX locale `C` as the language of the page, which is no language tag: a library that formats numbers by
// it fails as it is loaded, and the whole page with it. Imported before everything else.

try {
  new Intl.NumberFormat(navigator.language);
} catch {
  Object.defineProperty(navigator, 'language', { value: document.documentElement.lang });
}

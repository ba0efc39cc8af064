// Sets the theme before the first paint. A classic script, so that it runs before the style sheets apply.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem('tidemill-theme');
  } catch {
    // Storage may be forbidden; the system's preference stands.
  }
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
})();

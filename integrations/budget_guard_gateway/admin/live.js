const every = 5000;
async function look() {
  if (document.hidden) return;
  let answer;
  try {
    answer = await fetch(location.href, { headers: { accept: "text/html" } });
  } catch {
    return;
  }
  if (answer.redirected) return location.reload();
  if (!answer.ok) return;
  const text = await answer.text();
  const page = new DOMParser().parseFromString(text.slice(text.indexOf("<body")), "text/html"); // its style is not ours
  for (const now of page.querySelectorAll("[data-live]")) {
    const then = document.getElementById(now.id);
    if (then && !then.contains(document.activeElement) && then.innerHTML !== now.innerHTML) then.replaceWith(now);
  }
}
setInterval(look, every);

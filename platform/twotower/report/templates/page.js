for (const box of document.querySelectorAll(".command")) {
  const button = document.createElement("button");
  button.className = "copy";
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(box.querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  box.append(button);
}
for (const place of document.querySelectorAll("[data-copy]")) {
  place.addEventListener("click", async () => {
    await navigator.clipboard.writeText(place.dataset.copy);
    place.classList.add("copied");
    setTimeout(() => { place.classList.remove("copied"); }, 1500);
  });
}

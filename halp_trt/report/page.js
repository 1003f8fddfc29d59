"use strict";
// Shows the numbers of the point nearest to the pointer, or chosen with the arrow keys. Without it they are titles.
(() => {
  const REACH = 16;
  const tip = document.getElementById("tip");

  const hide = (point) => {
    tip.hidden = true;
    if (point) point.mark.classList.remove("on");
  };

  const show = (point) => {
    point.mark.classList.add("on");
    tip.textContent = point.text;
    tip.hidden = false;
    const at = point.mark.getBoundingClientRect();
    const room = document.documentElement.clientWidth - tip.offsetWidth - 6;
    const left = at.left + at.width / 2 - tip.offsetWidth / 2;
    const above = at.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.max(6, Math.min(left, room))}px`;
    tip.style.top = `${above > 6 ? above : at.bottom + 8}px`;
  };

  for (const svg of document.querySelectorAll("figure svg")) {
    const points = [];
    for (const mark of svg.querySelectorAll(".tip")) {
      const title = mark.querySelector("title");
      points.push({ mark, text: title.textContent, x: mark.cx.baseVal.value, y: mark.cy.baseVal.value });
      title.remove(); // or the browser would show it, too
    }
    if (!points.length) continue;
    let chosen = -1;
    const choose = (number) => {
      hide(points[chosen]);
      chosen = number;
      if (chosen >= 0) show(points[chosen]);
    };
    const near = (event) => {
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      let best = -1;
      let least = REACH;
      points.forEach((point, number) => {
        const distance = Math.hypot(point.x - place.x, point.y - place.y);
        if (distance < least) [best, least] = [number, distance];
      });
      choose(best);
    };
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("pointermove", near);
    svg.addEventListener("pointerdown", near);
    svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") choose(-1); });
    svg.addEventListener("blur", () => choose(-1));
    svg.addEventListener("keydown", (event) => {
      const last = points.length - 1;
      const moves = { ArrowRight: chosen + 1, ArrowLeft: chosen < 0 ? last : chosen - 1, Home: 0, End: last, Escape: -1 };
      if (!(event.key in moves)) return;
      event.preventDefault();
      const number = moves[event.key];
      choose(event.key === "Escape" ? -1 : Math.max(0, Math.min(number, last)));
      if (chosen >= 0) {
        points[chosen].mark.scrollIntoView({ block: "nearest", inline: "nearest" });
        show(points[chosen]);
      }
    });
  }
  document.addEventListener("scroll", () => { tip.hidden = true; }, { capture: true, passive: true });
})();

// What is wrong with the page as it is laid out: contrasts, parts cut off, empty pictures. Returns sentences.
const wrong = [];
const width = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth > width) wrong.push(`the page is ${document.documentElement.scrollWidth} px wide`);

const numbers = (color) => color.match(/[\d.]+/g).map(Number);
const luminance = (rgb) => {
  const [r, g, b] = rgb.slice(0, 3).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const over = (top, alpha, ground) => top.slice(0, 3).map((c, i) => alpha * c + (1 - alpha) * ground[i]);
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const color = numbers(getComputedStyle(e).backgroundColor);
    if (color.length < 4 || color[3] > 0) return color.slice(0, 3);
  }
  return [255, 255, 255];
};
const contrast = (a, b) => {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};
const scrolls = (element) => {
  for (let e = element.parentElement; e; e = e.parentElement) if (/auto|scroll/.test(getComputedStyle(e).overflowX)) return true;
  return false;
};

for (const element of document.querySelectorAll("main *")) {
  const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || element.closest("svg") || element.closest("details:not([open])") || !element.checkVisibility()) continue;
  const found = contrast(numbers(getComputedStyle(element).color), ground(element));
  const text = element.textContent.trim().slice(0, 30);
  if (found < 4.5) wrong.push(`'${text}' has a contrast of ${found.toFixed(2)}`);
  const box = element.getBoundingClientRect();
  if (!scrolls(element) && (box.right > width + 1 || box.left < -1)) wrong.push(`'${text}' is cut off`);
}

for (const svg of document.querySelectorAll("figure svg")) {
  const frame = svg.getBoundingClientRect();
  if (frame.width < 100 || frame.height < 50) wrong.push("a figure is empty");
  const paper = ground(svg);
  const grid = getComputedStyle(document.documentElement).getPropertyValue("--line").trim();
  const probe = document.createElement("i");
  probe.style.color = grid;
  svg.parentElement.append(probe);
  const line = getComputedStyle(probe).color;
  probe.remove();
  let numMarks = 0;
  for (const text of svg.querySelectorAll("text")) {
    const found = contrast(numbers(getComputedStyle(text).fill), paper);
    if (found < 4.5) wrong.push(`the figure's '${text.textContent}' has a contrast of ${found.toFixed(2)}`);
    const box = text.getBoundingClientRect();
    if (box.left < frame.left - 2 || box.right > frame.right + 2 || box.top < frame.top - 2 || box.bottom > frame.bottom + 2)
      wrong.push(`the figure's '${text.textContent}' is cut off`);
  }
  for (const mark of svg.querySelectorAll("path, use")) {
    if (mark.closest("defs") || mark.closest("clipPath")) continue;
    const style = getComputedStyle(mark);
    if (style.stroke === "none" || style.stroke === line) continue;
    numMarks += 1;
    const alpha = Number(style.strokeOpacity) * Number(style.opacity);
    const stroke = numbers(style.stroke);
    const found = contrast(over(stroke, alpha, paper), paper);
    const onMap = stroke.slice(0, 3).every((c) => c === 255); // white lines lie on a map
    if (found < 3 && !onMap) wrong.push(`a line of ${style.stroke} has a contrast of ${found.toFixed(2)}`);
  }
  numMarks += svg.querySelectorAll("image").length;
  numMarks += [...svg.querySelectorAll("path")].filter((p) => getComputedStyle(p).fill !== "none" && p.getBBox().width > 0).length;
  if (!numMarks) wrong.push("a figure has no marks");
}
return [...new Set(wrong)];

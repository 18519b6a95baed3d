// Makes the base maps and the golden points of their projections: npm ci && node make.mjs, in this folder.
// The same packages give the same bytes (package-lock.json pins them); `node make.mjs --check` writes nothing and says what differs.
//
// Only paths and class names: the pages' policy allows no inline style, and colours belong to the page.
import { readFileSync, writeFileSync } from "node:fs";
import { geoAlbersUsa, geoGraticule, geoNaturalEarth1, geoPath } from "d3-geo";
import { feature, mesh } from "topojson-client";

const root = new URL("../../", import.meta.url);
const read = (name) => JSON.parse(readFileSync(new URL(`node_modules/${name}`, import.meta.url), "utf8"));

const worldProjection = geoNaturalEarth1().fitExtent([[0.5, 0.5], [959.5, 499.5]], { type: "Sphere" });
const usaProjection = geoAlbersUsa().scale(1280).translate([480, 300]);

// The same path from point to point in whole tenths, which takes a third of the bytes: "M10.5,20L11,20.2Z" becomes "M10.5 20l.5.2z".
function compact(d) {
  const text = (tenths) => String(tenths / 10).replace(/^(-?)0\./, "$1.");
  const join = (left, right) => left + (/^-/.test(right) || (/^\./.test(right) && /\.\d*$/.test(left)) ? "" : " ") + right;
  let out = "";
  for (const line of d.split("M").slice(1)) {
    const isClosed = line.endsWith("Z");
    const points = line.replace(/Z$/, "").split("L").map((point) => point.split(",").map((value) => Math.round(value * 10)));
    let [x, y] = points[0];
    const moves = [];
    for (const [nextX, nextY] of points.slice(1)) {
      const [dx, dy] = [nextX - x, nextY - y];
      [x, y] = [nextX, nextY];
      const last = moves.at(-1);
      // Parallels are straight: one step for all of a row in the same direction.
      const goesOn = last && ((dx === 0 && last[0] === 0 && dy * last[1] >= 0) || (dy === 0 && last[1] === 0 && dx * last[0] >= 0));
      if (goesOn) moves[moves.length - 1] = [last[0] + dx, last[1] + dy];
      else if (dx !== 0 || dy !== 0) moves.push([dx, dy]);
    }
    const steps = moves.map(([dx, dy]) => join(text(dx), text(dy))).reduce((left, right) => left === "" ? right : join(left, right), "");
    if (steps !== "") out += `M${join(text(points[0][0]), text(points[0][1]))}l${steps}${isClosed ? "z" : ""}`;
  }
  return out;
}

const path = (name, d) => `<path class="${name}" d="${compact(d)}"/>\n`;

// Antarctica has no facility, but a world without it looks cut off.
function world() {
  const atlas = read("world-atlas/countries-110m.json");
  const draw = geoPath(worldProjection).digits(1);
  const { countries, land } = atlas.objects;
  return path("map-sea", draw({ type: "Sphere" }))
    + path("map-graticule", draw(geoGraticule().step([30, 30])()))
    + path("map-land", draw(feature(atlas, land)))
    + path("map-border", draw(mesh(atlas, countries, (a, b) => a !== b)));
}

function usa() {
  const atlas = read("us-atlas/states-10m.json");
  const draw = geoPath(usaProjection).digits(1);
  const { nation, states } = atlas.objects;
  return path("map-land", draw(feature(atlas, nation)))
    + path("map-border", draw(mesh(atlas, states, (a, b) => a !== b)));
}

// Points all over the world, and some at the edges of what the map of the United States shows; null: not on it.
function golden() {
  const places = [[0, 0], [-118.44, 33.98], [-71.09, 42.34], [-111.84, 40.76], [-149.9, 61.2], [-157.86, 21.3], [-66.1, 18.47], [2.35, 48.86],
    [13.4, 52.52], [151.2, -33.87], [-179.9, 65], [179.9, -16.5], [-80.19, 25.76], [-124.7, 48.38], [-67, 44.8], [-97.1, 25.9], [-176.6, 51.9],
    [-155.09, 19.72], [-160.2, 22], [0, 90], [0, -90], [-58.4, -34.6], [139.7, 35.7], [-79.4, 43.7], [-99.1, 19.4], [-130, 55]];
  for (let longitude = -165; longitude <= 165; longitude += 30) {
    for (let latitude = -75; latitude <= 75; latitude += 30) places.push([longitude, latitude]);
  }
  for (let longitude = -124; longitude <= -68; longitude += 8) {
    for (let latitude = 26; latitude <= 48; latitude += 4) places.push([longitude, latitude]);
  }
  const round = (point) => point && point.map((value) => Number(value.toFixed(6)));
  const rows = places.map((place) => JSON.stringify({ place, world: round(worldProjection(place)), usa: round(usaProjection(place)) }));
  return `[\n${rows.join(",\n")}\n]\n`;
}

const outputs = { "src/map/world.svg": world(), "src/map/usa.svg": usa(), "tests/map/golden.json": golden() };
console.log(`world: scale ${worldProjection.scale()}, translate ${worldProjection.translate()}`);
let differs = false;
for (const [name, text] of Object.entries(outputs)) {
  const file = new URL(name, root);
  if (!process.argv.includes("--check")) {
    writeFileSync(file, text);
  } else if (readFileSync(file, "utf8") !== text) {
    console.error(`${name} differs from what make.mjs makes`);
    differs = true;
  }
}
process.exit(differs ? 1 : 0);

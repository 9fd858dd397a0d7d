# The tables of the models that are not made by hand: from R's packages to data/*.csv.gz.
# Run in this directory: Rscript export_data.R
out <- function(d, name) {
  f <- gzfile(file.path("data", paste0(name, ".csv.gz")), "w")
  write.csv(d, f, row.names = FALSE); close(f)
}
data("Salamanders", package = "glmmTMB")
s <- Salamanders
out(data.frame(site = s$site, mined = s$mined, spp = gsub("-", "", s$spp), DOY = s$DOY, count = s$count), "salamanders")
data("Arabidopsis", package = "lme4")
a <- Arabidopsis
out(data.frame(popu = a$popu, gen = paste0("g", a$gen), rack = paste0("r", a$rack),
  nutrient = paste0("n", a$nutrient), amd = a$amd, status = gsub("[^A-Za-z]", "", a$status),
  fruits = a$total.fruits), "arabidopsis")
data("sleepstudy", package = "lme4")
out(data.frame(Reaction = sleepstudy$Reaction, Days = sleepstudy$Days, Subject = paste0("s", sleepstudy$Subject)), "sleepstudy")
cw <- as.data.frame(datasets::ChickWeight)
out(data.frame(weight = cw$weight, time = cw$Time / 10, diet = paste0("d", cw$Diet), chick = paste0("c", cw$Chick)), "chickweight")
o <- as.data.frame(nlme::Orthodont)
out(data.frame(distance = o$distance, age = o$age - 11, sex = as.character(o$Sex), subject = as.character(o$Subject)), "orthodont")
data("Penicillin", package = "lme4")
out(data.frame(diameter = Penicillin$diameter, plate = as.character(Penicillin$plate), sample = as.character(Penicillin$sample)), "penicillin")
data("guImmun", package = "mlmRev")
g <- guImmun
out(data.frame(immun = as.character(g$immun), kid2p = as.character(g$kid2p), mom25p = as.character(g$mom25p),
  rural = as.character(g$rural), pcInd81 = g$pcInd81, comm = paste0("c", g$comm)), "guimmun")
